// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The known formats; sources are their specifications and the magic of file(1).
extension FileFormat {
    /// Lines of text, which have no magic number; see `isText` for the encodings.
    static let text = FileFormat("text", "a text file", [])

    /// All formats except text; if several match, the first counts.
    static let all = disks + backups + compressed + archives + documents

    private static let disks: [FileFormat] = [
        .init(
            "qcow", "a qcow image", [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 1], .start(0), .qemu("qcow")),
        // Of version 2, 3 and any later one.
        .init("qcow2", "a qcow2 image", [0x51, 0x46, 0x49, 0xfb], .start(0), qcow2),
        .init("qed", "a QED image", "QED\0", .start(0), .qemu("qed")),
        .init("vmdk", "a VMDK image", "KDMV", .start(0), vmdk),
        .init("vmdk", "a VMDK image", "COWD", .start(0), vmdk),
        .init("vmdk", "a VMDK image", [0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0], .start(0), vmdk),
        .init("vmdk", "a VMDK image", "# Disk DescriptorFile", .start(0), vmdk),
        .init("vhdx", "a VHDX image", "vhdxfile", .start(0), .qemu("vhdx")),
        .init("vhd", "a VHD image", "conectix", .start(0), vhd),
        .init("vhd", "a VHD image", "conectix", .end(512), vhd),
        .init("vhd", "a VHD image", "conectix", .end(511), vhd),
        .init("vdi", "a VDI image", [0x7f, 0x10, 0xda, 0xbe], .start(64), .qemu("vdi")),
        .init("parallels", "a Parallels image", "WithoutFreeSpace", .start(0), parallels),
        .init("parallels", "a Parallels image", "WithouFreSpacExt", .start(0), parallels),
        .init("bochs", "a Bochs image", "Bochs Virtual HD Image", .start(0), .qemu("bochs")),
        .init("cloop", "a cloop image", "#!/bin/sh\n#V2.0 Format\n", .start(0), .qemu("cloop")),
        .init("dmg", "a DMG image", "koly", .end(512), .qemu("dmg")),
    ]
    private static let qcow2 = Unpacker.qemu("qcow2")
    private static let vmdk = Unpacker.qemu("vmdk")
    private static let vhd = Unpacker.qemu("vpc")
    private static let parallels = Unpacker.qemu("parallels")

    /// Backups and deliverables from which a disk can be made.
    private static let backups: [FileFormat] = [
        .init(
            "android-sparse", "an Android sparse image", [0x3a, 0xff, 0x26, 0xed], .start(0),
            .command("simg2img")),
        .init("ewf", "an EWF image", [0x45, 0x56, 0x46, 9, 13, 10, 255, 0], .start(0), ewf),
        .init("ewf", "an EWF image", [0x45, 0x56, 0x46, 0x32, 13, 10, 0x81, 0], .start(0), ewf),
        .init("aff", "an AFF image", "AFF10\r\n\0", .start(0), .command("affconvert")),
        .init("wim", "a WIM archive", "MSWIM\0\0\0", .start(0), .command("wimapply")),
        .init(
            "partclone", "a partclone image", "partclone-image", .start(0),
            .command("partclone.restore")),
        .init(
            "ntfsclone", "an ntfsclone image", "\0ntfsclone-image", .start(0),
            .command("ntfsclone --restore-image")),
        .init(
            "partimage", "a Partimage image", "PaRtImAgE-VoLuMe", .start(0), .command("partimage")),
        .init("vma", "a VMA archive", "VMA\0", .start(0), .command("vma extract")),
        .init("rbd-diff", "an RBD diff", "rbd diff v", .start(0), .command("rbd import-diff")),
        .init("fsarchiver", "an fsarchiver archive", "FsA0", .start(0), .command("fsarchiver")),
        .init(
            "btrfs-stream", "a btrfs send stream", "btrfs-stream\0", .start(0),
            .command("btrfs receive")),
        .init(
            "zfs-stream", "a ZFS send stream", [0xac, 0xcb, 0xba, 0xf5, 2, 0, 0, 0], .start(8),
            .command("zfs receive")),
        .init("xfsdump", "an xfsdump archive", "xFSdump0", .start(0), .command("xfsrestore")),
        .init("dar", "a dar archive", [0, 0, 0, 0x7b], .start(0), .command("dar -x")),
        .init("ghost", "a Norton Ghost image", [0xfe, 0xef, 1]),
        .init("acronis", "an Acronis image", [0xb4, 0x6e, 0x68, 0x44]),
        .init("acronis", "an Acronis image", [0xce, 0x24, 0xb9, 0xa2]),
        .init("bmap", "a block map", "<?xml", .start(0), .command("bmaptool copy")),
    ]
    private static let ewf = Unpacker.command("ewfexport")

    /// Formats that hold one other file.
    private static let compressed: [FileFormat] = [
        .init("gzip", "a gzip file", [0x1f, 0x8b, 8], .start(0), .filter("gzip -dc")),
        .init("xz", "an xz file", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], .start(0), .filter("xz -dc")),
        .init("zstd", "a zstd file", [0x28, 0xb5, 0x2f, 0xfd], .start(0), .filter("zstd -dc")),
        .init("bzip2", "a bzip2 file", "BZh", .start(0), .filter("bzip2 -dc")),
        .init("lz4", "an lz4 file", [4, 0x22, 0x4d, 0x18], .start(0), .filter("lz4 -dc")),
        .init("lz4", "an lz4 file", [2, 0x21, 0x4c, 0x18], .start(0), .filter("lz4 -dc")),
        .init("lzip", "an lzip file", "LZIP", .start(0), .filter("lzip -dc")),
        .init(
            "lzop", "an lzop file", [0x89, 0x4c, 0x5a, 0x4f, 0, 13, 10, 26], .start(0),
            .filter("lzop -dc")),
        .init(
            "lzma", "an lzma file", [0x5d, 0, 0, 0x80, 0], .start(0),
            .filter("xz --format=lzma -dc")),
        .init("compress", "a compress file", [0x1f, 0x9d, 0x90], .start(0), .filter("gzip -dc")),
        .init("pzstd", "a zstd file", [0x2a, 0x4d, 0x18], .start(1), .filter("zstd -dc")),
        .init("lrzip", "an lrzip file", "LRZI", .start(0), .filter("lrzcat")),
        .init("openssl", "a file encrypted by OpenSSL", "Salted__"),
        .init("age", "a file encrypted by age", "age-encryption.org/"),
        .init("keepass", "a KeePass database", [0x03, 0xd9, 0xa2, 0x9a]),
        // RFC 9580: a session key for RSA, for X25519, or from a password.
        .init("openpgp", "a file encrypted by OpenPGP", [0x85, 1, 0x0c, 3]),
        .init("openpgp", "a file encrypted by OpenPGP", [0x85, 1, 0x8c, 3]),
        .init("openpgp", "a file encrypted by OpenPGP", [0x85, 2, 0x0c, 3]),
        .init("openpgp", "a file encrypted by OpenPGP", [0x84, 0x5e, 3]),
        .init("openpgp", "a file encrypted by OpenPGP", [0x8c, 0x0d, 4, 9]),
        .init("der", "a key or certificate in DER", [0x30, 0x82]),
    ]

    private static let archives: [FileFormat] = [
        .init("zip", "a zip archive", [0x50, 0x4b, 3, 4], .start(0), .filter("unzip -p")),
        .init("zip", "a zip archive", [0x50, 0x4b, 5, 6]),
        .init(
            "7z", "a 7z archive", [0x37, 0x7a, 0xbc, 0xaf, 0x27, 0x1c], .start(0),
            .filter("7z x -so")),
        .init(
            "rar", "a RAR archive", [0x52, 0x61, 0x72, 0x21, 0x1a, 7], .start(0),
            .filter("unrar p -inul")),
        .init("tar", "a tar archive", "ustar", .start(257), .filter("tar -xOf")),
        .init("cpio", "a cpio archive", "070701"),
        .init("cpio", "a cpio archive", "070702"),
        .init("cpio", "a cpio archive", "070707"),
        .init("cab", "a cabinet archive", "MSCF\0\0\0\0"),
        .init("ar", "an ar archive", "!<arch>\n"),
        .init("rpm", "an RPM package", [0xed, 0xab, 0xee, 0xdb]),
        .init("xar", "a xar archive", "xar!"),
        .init("dump", "a PostgreSQL dump", "PGDMP"),
        .init("git-pack", "a Git pack", "PACK\0\0\0"),
    ]

    private static let documents: [FileFormat] = [
        .init("pdf", "a PDF document", "%PDF-"),
        .init("postscript", "a PostScript document", "%!PS"),
        .init(
            "ole", "a Microsoft Office document", [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]),
        .init("elf", "an ELF program", [0x7f, 0x45, 0x4c, 0x46]),
        .init("pe", "a Windows program", "MZ"),
        .init("macho", "a Mach-O program", [0xcf, 0xfa, 0xed, 0xfe]),
        .init("macho", "a Mach-O program", [0xce, 0xfa, 0xed, 0xfe]),
        .init("macho", "a Mach-O program or a Java class", [0xca, 0xfe, 0xba, 0xbe]),
        .init("dex", "an Android program", "dex\n"),
        .init("crx", "a Chrome extension", "Cr24"),
        .init("pyc", "a compiled Python program", [0x0d, 0x0d, 0x0a], .start(1)),
        .init("pyc", "a compiled Python program", [0x0e, 0x0d, 0x0a], .start(1)),
        .init("wasm", "a WebAssembly program", "\0asm"),
        .init("sqlite", "an SQLite database", "SQLite format 3\0"),
        .init("redis", "a Redis database", "REDIS0"),
        .init("access", "a Microsoft Access database", "\0\u{1}\0\0Standard "),
        .init("mdf", "a SQL Server database", [1, 0x0f, 0, 0]),
        .init("outlook", "an Outlook folder", "!BDN"),
        // A B-tree, a hash table and a queue.
        .init("bdb", "a Berkeley DB file", [0x62, 0x31, 5, 0], .start(12)),
        .init("bdb", "a Berkeley DB file", [0x61, 0x15, 6, 0], .start(12)),
        .init("bdb", "a Berkeley DB file", [0x53, 0x22, 4, 0], .start(12)),
        .init("lmdb", "an LMDB database", [0xde, 0xc0, 0xef, 0xbe], .start(16)),
        .init("journal", "a systemd journal", "LPKSHHRH"),
        .init("hdf5", "an HDF5 file", [0x89, 0x48, 0x44, 0x46, 13, 10, 26, 10]),
        .init("parquet", "a Parquet file", "PAR1"),
        .init("pcap", "a packet capture", [0xd4, 0xc3, 0xb2, 0xa1]),
        .init("pcap", "a packet capture", [0x0a, 0x0d, 0x0d, 0x0a]),
        .init("png", "a PNG picture", [0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]),
        .init("jpeg", "a JPEG picture", [0xff, 0xd8, 0xff]),
        .init("gif", "a GIF picture", "GIF87a"),
        .init("gif", "a GIF picture", "GIF89a"),
        .init("tiff", "a TIFF picture", [0x49, 0x49, 0x2a, 0]),
        .init("tiff", "a TIFF picture", [0x4d, 0x4d, 0, 0x2a]),
        .init("bmp", "a BMP picture", "BM"),
        .init("psd", "a Photoshop picture", "8BPS"),
        .init("xcf", "a GIMP picture", "gimp xcf"),
        .init("blender", "a Blender file", "BLENDER"),
        .init("dwg", "an AutoCAD drawing", "AC10"),
        .init("dicom", "a DICOM picture", "DICM", .start(128)),
        .init("riff", "a RIFF file", "RIFF"),
        .init("mp4", "an MP4 or HEIF file", "ftyp", .start(4)),
        .init("asf", "a Windows Media file", [0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]),
        .init("flv", "a Flash video", "FLV\u{1}"),
        .init("mpeg", "an MPEG video", [0, 0, 1, 0xba]),
        .init("mpeg", "an MPEG video", [0, 0, 1, 0xb3]),
        .init("matroska", "a Matroska video", [0x1a, 0x45, 0xdf, 0xa3]),
        .init("ogg", "an Ogg file", "OggS\0"),
        .init("flac", "a FLAC file", "fLaC"),
        .init("mp3", "an MP3 file", "ID3"),
        .init("gpg", "a file with a PEM or OpenPGP header", "-----BEGIN "),
    ]
}
