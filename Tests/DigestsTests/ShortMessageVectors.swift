// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// NIST Cryptographic Algorithm Validation Program, files <method>ShortMsg.rsp: of each the empty
// message, one byte, and lengths about where the padding needs another block.

extension DigestVector {
    /// "SHA Test Vectors for Hashing Byte-Oriented Messages", for FIPS 180-4.
    static let fips180ShortMessages = vectors(
        """
        Method = sha1
        Msg =
        MD = da39a3ee5e6b4b0d3255bfef95601890afd80709

        Method = sha1
        Msg = 36
        MD = c1dfd96eea8cc2b62785275bca38ac261256e278

        Method = sha1
        Msg = ec6b4a88713df27c0f2d02e738b69db43abda3921317259c864c1c386e9a5a3f533dc05f3beeb2be
            c2aac8e06db4c6cb3cddcf697e03d5
        MD = a7272e2308622ff7a339460adc61efd0ea8dabdc

        Method = sha1
        Msg = 0321736beba578e90abc1a90aa56157d871618f6de0d764cc8c91e06c68ecd3b9de3824064503384
            db67beb7fe012232dacaef93a000fba7
        MD = aef843b86916c16f66c84d83a6005d23fd005c9e

        Method = sha1
        Msg = 45927e32ddf801caf35e18e7b5078b7f5435278212ec6bb99df884f49b327c6486feae46ba187dc1
            cc9145121e1492e6b06e9007394dc33b7748f86ac3207cfe
        MD = a70cfbfe7563dd0e665c7c6715a96a8d756950c0

        Method = sha224
        Msg =
        MD = d14a028c2a3a2bc9476102bb288234c415a2b01f828ea62ac5b3e42f

        Method = sha224
        Msg = 84
        MD = 3cd36921df5d6963e73739cf4d20211e2d8877c19cff087ade9d0e3a

        Method = sha224
        Msg = 445e8698eeb8accbaac4ffa7d934fffd16014a430ef70f3a9174c6cfe96d1e3f6ab1377f4a7212db
            b30146dd17d9f470c4dffc45b8e871
        MD = 4c7ae028c0fe61f2a9cada61fae30685b77f04c6442576e912af9fa6

        Method = sha224
        Msg = 52839f2f0853a30df14ec897a1914c685c1ac21470d00654c8c37663bfb65fa732dbb694d9dd09ce
            d723b48d8f545846ba168988b61cc724
        MD = 2f755a57674b49d5c25cb37348f35b6fd2de2552c749f2645ba63d20

        Method = sha224
        Msg = a3310ba064be2e14ad32276e18cd0310c933a6e650c3c754d0243c6c61207865b4b65248f66a08ed
            f6e0832689a9dc3a2e5d2095eeea50bd862bac88c8bd318d
        MD = b2a5586d9cbf0baa999157b4af06d88ae08d7c9faab4bc1a96829d65

        Method = sha256
        Msg =
        MD = e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

        Method = sha256
        Msg = d3
        MD = 28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1

        Method = sha256
        Msg = 3ebfb06db8c38d5ba037f1363e118550aad94606e26835a01af05078533cc25f2f39573c04b632f6
            2f68c294ab31f2a3e2a1a0d8c2be51
        MD = 6595a2ef537a69ba8583dfbf7f5bec0ab1f93ce4c8ee1916eff44a93af5749c4

        Method = sha256
        Msg = 2d52447d1244d2ebc28650e7b05654bad35b3a68eedc7f8515306b496d75f3e73385dd1b00262502
            4b81a02f2fd6dffb6e6d561cb7d0bd7a
        MD = cfb88d6faf2de3a69d36195acec2e255e2af2b7d933997f348e09f6ce5758360

        Method = sha256
        Msg = 5a86b737eaea8ee976a0a24da63e7ed7eefad18a101c1211e2b3650c5187c2a8a650547208251f6d
            4237e661c7bf4c77f335390394c37fa1a9f9be836ac28509
        MD = 42e61e174fbb3897d6dd6cef3dd2802fe67b331953b06114a65c772859dfc1aa

        Method = sha384
        Msg =
        MD = 38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fb
            d51ad2f14898b95b

        Method = sha384
        Msg = c5
        MD = b52b72da75d0666379e20f9b4a79c33a329a01f06a2fb7865c9062a28c1de860ba432edfd86b4cb1
            cb8a75b46076e3b1

        Method = sha384
        Msg = a04f390a9cc2effad05db80d9076a8d4b6cc8bba97b27b423670b290b8e69c2b187230011c1481ac
            88d090f39154659494db5e410851c6e8b2b8a93717cae76037e0881978124fe7e1a0929d8891491f
            4e99646cc94062dc82411fa66130eda46560e75b98048236439465125e737b
        MD = e7089d72945cef851e689b4409cfb63d135f0b5cdfb0dac6c3a292dd70371ab4b79da1997d799290
            6ac7213502662920

        Method = sha384
        Msg = f419494c3c6d0727b3395a483a2167182a7252f4fd099c2d4b71b053f94bb8b3adf3b51e8460cfec
            084ce9415c95798fbae4975c208c544645b54c44d2b97f2ecfce5c805be61f5ba1d35dcc07afdd51
            a87baa990506668cf710e18be9b0ebf943f366fa29c69f7a6616de72a3353b66
        MD = aead8688c58c6ba4e9cadb4756b465dce0fb06f1cfaa478197f2ea89414e47e9572034adfed16070
            3c79b82b3fd7ab78

        Method = sha384
        Msg = 3bf52cc5ee86b9a0190f390a5c0366a560b557000dbe5115fd9ee11630a62769011575f15881198f
            227876e8fe685a6939bc8b89fd48a34ec5e71e131462b2886794dffa68ccc6d564733e67ffef25e6
            27c6f4b5460796e3bce67bf58ca6e8e555bc916a8531697ac948b90dc8616f25101db90b50c3d3db
            c9e21e42ff387187
        MD = 12b6cb35eda92ee37356ddee77781a17b3d90e563824a984faffc6fdd1693bd7626039635563cfc3
            b9a2b00f9c65eefd

        Method = sha512
        Msg =
        MD = cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0
            ff8318d2877eec2f63b931bd47417a81a538327af927da3e

        Method = sha512
        Msg = 21
        MD = 3831a6a6155e509dee59a7f451eb35324d8f8f2df6e3708894740f98fdee23889f4de5adb0c5010d
            fb555cda77c8ab5dc902094c52de3278f35a75ebc25f093a

        Method = sha512
        Msg = 324533e685f1852e358eea8ea8b81c288b3f3beb1f2bc2b8d3fdbac318382e3d7120de30c9c237aa
            0a34831deb1e5e060a7969cd3a9742ec1e64b354f7eb290cba1c681c66cc7ea994fdf5614f604d1a
            2718aab581c1c94931b1387e4b7dc73635bf3a7301174075fa70a9227d85d3
        MD = 3b26c5170729d0814153becb95f1b65cd42f9a6d0649d914e4f69d938b5e9dc041cd0f5c8da0b484
            d7c7bc7b1bdefb08fe8b1bfedc81109345bc9e9a399feedf

        Method = sha512
        Msg = 518985977ee21d2bf622a20567124fcbf11c72df805365835ab3c041f4a9cd8a0ad63c9dee1018aa
            21a9fa3720f47dc48006f1aa3dba544950f87e627f369bc2793ede21223274492cceb77be7eea50e
            5a509059929a16d33a9f54796cde5770c74bd3ecc25318503f1a41976407aff2
        MD = c00926a374cde55b8fbd77f50da1363da19744d3f464e07ce31794c5a61b6f9c85689fa1cfe13655
            3527fd876be91673c2cac2dd157b2defea360851b6d92cf4

        Method = sha512
        Msg = fd2203e467574e834ab07c9097ae164532f24be1eb5d88f1af7748ceff0d2c67a21f4e4097f9d3bb
            4e9fbf97186e0db6db0100230a52b453d421f8ab9c9a6043aa3295ea20d2f06a2f37470d8a99075f
            1b8a8336f6228cf08b5942fc1fb4299c7d2480e8e82bce175540bdfad7752bc95b577f229515394f
            3ae5cec870a4b2f8
        MD = a21b1077d52b27ac545af63b32746c6e3c51cb0cb9f281eb9f3580a6d4996d5c9917d2a6e484627a
            9d5a06fa1b25327a9d710e027387fc3e07d7c4d14c6086cc

        Method = sha512-256
        Msg =
        MD = c672b8d1ef56ed28ab87c3622c5114069bdd3ad7b8f9737498d0c01ecef0967a

        Method = sha512-256
        Msg = fa
        MD = c4ef36923c64e51e875720e550298a5ab8a3f2f875b1e1a4c9b95babf7344fef

        Method = sha512-256
        Msg = 5731f467c5b923c43af9c5fa849aad21ab8dd7db1ca1a687065571b705ea3ee4febdcd614ad4d98e
            16b79a4e09818ebb28367918f757ab06e1b481fbda822ef143adbb5b0e704d5d2222a73c0153ef14
            a817b5c9b7a2313fd115ccce4698e3f0efa9c73d5ab3089a27e3f3adb23759
        MD = f5253b5c69db9c724aebf762ec51c221f8a4d4e2174a4b7f56e4d69aa44adfa3

        Method = sha512-256
        Msg = 92b23c0bc4d8d07d22e28812710dff06cb9bbecea2c960ac0200f480164fa2e1ee19926c7f0b095c
            ec51d55c040aec990bf9501abd7d355490c366f93a3ae5127347d14dfc3b8d98e0821feefa1cd671
            b75230ba1da1fa6d0cfbb910c42f491da8a5c455424ea65886db2e735b2d07b9
        MD = 55a0597f11ff71c426201715beb585f254bb31c1dbade533f04e499c3391ff79

        Method = sha512-256
        Msg = bc8173c878ca60e9a0f823f9a589d4ff84547b389b117fb6bb1b614e7e75a9b1db0b21d9f73b42a7
            3e94eccab3de5ae2845a54e5e24ba6c20fb4d245b964023b863040d6f080e953530d5fd944e8ffa5
            25bf5364f65c88e06e6e22df4b8cee48e67738880a9f3f3406e9e6f001b0ac8f8e0ade7c814c0c58
            00d0b9e4ddf55622
        MD = f691d01ee9ab675f3872313b77e6a4543c71e3e89aa94c48f91d6ee7fa1ab4fb
        """)

    /// "SHA-3 Test Vectors for Hashing Byte-Oriented Messages", for FIPS 202.
    static let fips202ShortMessages = vectors(
        """
        Method = sha3-224
        Msg =
        MD = 6b4e03423667dbb73b6e15454f0eb1abd4597f9a1b078e3f5b5a6bc7

        Method = sha3-224
        Msg = 01
        MD = 488286d9d32716e5881ea1ee51f36d3660d70f0db03b3f612ce9eda4

        Method = sha3-224
        Msg = 0eef947f1e4f01cdb5481ca6eaa25f2caca4c401612888fecef52e283748c8dfc7b47259322c1f4f
            985f98f6ad44c13117f51e0517c0974d6c7b78af7419bcce957b8bc1db8801c5e280312ef78d6aa4
            7a9cb98b866aaec3d5e26392dda6bbde3fece8a0628b30955b55f03711a8e1eb9e409a7cf84f56c8
            d0d0f8b9ba184c778fae90dc0f5c3329cb86dcf743bbae
        MD = 98ec52c21cb988b1434b1653dd4ac806d118de6af1bb471c16577c34

        Method = sha3-224
        Msg = e65de91fdcb7606f14dbcfc94c9c94a57240a6b2c31ed410346c4dc011526559e44296fc988cc589
            de2dc713d0e82492d4991bd8c4c5e6c74c753fc09345225e1db8d565f0ce26f5f5d9f404a28cf00b
            d655a5fe04edb682942d675b86235f235965ad422ba5081a21865b8209ae81763e1c4c0cccbccdaa
            d539cf773413a50f5ff1267b9238f5602adc06764f775d3c
        MD = 26ec9df54d9afe11710772bfbeccc83d9d0439d3530777c81b8ae6a3

        Method = sha3-256
        Msg =
        MD = a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a

        Method = sha3-256
        Msg = e9
        MD = f0d04dd1e6cfc29a4460d521796852f25d9ef8d28b44ee91ff5b759d72c1e6d6

        Method = sha3-256
        Msg = b1f6076509938432145bb15dbe1a7b2e007934be5f753908b50fd24333455970a7429f2ffbd28bd6
            fe1804c4688311f318fe3fcd9f6744410243e115bcb00d7e039a4fee4c326c2d119c42abd2e8f415
            5a44472643704cc0bc72403b8a8ab0fd4d68e04a059d6e5ed45033b906326abb4eb4147052779bad
            6a03b55ca5bd8b140e131bed2dfada
        MD = f82d9602b231d332d902cb6436b15aef89acc591cb8626233ced20c0a6e80d7a

        Method = sha3-256
        Msg = 56ea14d7fcb0db748ff649aaa5d0afdc2357528a9aad6076d73b2805b53d89e73681abfad26bee6c
            0f3d20215295f354f538ae80990d2281be6de0f6919aa9eb048c26b524f4d91ca87b54c0c54aa9b5
            4ad02171e8bf31e8d158a9f586e92ffce994ecce9a5185cc80364d50a6f7b94849a914242fcb73f3
            3a86ecc83c3403630d20650ddb8cd9c4
        MD = 4beae3515ba35ec8cbd1d94567e22b0d7809c466abfbafe9610349597ba15b45

        Method = sha3-384
        Msg =
        MD = 0c63a75b845e4f7d01107d852e4c2485c51a50aaaa94fc61995e71bbee983a2ac3713831264adb47
            fb6bd1e058d5f004

        Method = sha3-384
        Msg = 80
        MD = 7541384852e10ff10d5fb6a7213a4a6c15ccc86d8bc1068ac04f69277142944f4ee50d91fdc56553
            db06b2f5039c8ab7

        Method = sha3-384
        Msg = 6c36147652e71b560becbca1e7656c81b4f70bece26321d5e55e67a3db9d89e26f2f2a38fd0f289b
            f7fa22c2877e38d9755412794cef24d7b855303c332e0cb5e01aa50bb74844f5e345108d6811d501
            0978038b699ffaa370de8473f0cda38b89a28ed6cabaf6
        MD = b1319192df11faa00d3c4b068becc8f1ba3b00e0d1ff1f93c11a3663522fdb92ab3cca389634687c
            632e0a4b5a26ce92

        Method = sha3-384
        Msg = 92c41d34bd249c182ad4e18e3b856770766f1757209675020d4c1cf7b6f7686c8c1472678c7c4125
            14e63eb9f5aee9f5c9d5cb8d8748ab7a5465059d9cbbb8a56211ff32d4aaa23a23c86ead916fe254
            cc6b2bff7a9553df1551b531f95bb41cbbc4acddbd372921
        MD = 71307eec1355f73e5b726ed9efa1129086af81364e30a291f684dfade693cc4bc3d6ffcb7f3b4012
            a21976ff9edcab61

        Method = sha3-512
        Msg =
        MD = a69f73cca23a9ac5c8b567dc185a756e97c982164fe25859e0d1dcc1475c80a615b2123af1f5f94c
            11e3e9402c3ac558f500199d95b6d3e301758586281dcd26

        Method = sha3-512
        Msg = e5
        MD = 150240baf95fb36f8ccb87a19a41767e7aed95125075a2b2dbba6e565e1ce8575f2b042b62e29a04
            e9440314a821c6224182964d8b557b16a492b3806f4c39c1

        Method = sha3-512
        Msg = b0de0430c200d74bf41ea0c92f8f28e11b68006a884e0d4b0d884533ee58b38a438cc1a75750b643
            4f467e2d0cd9aa4052ceb793291b93ef83fd5d8620456ce1aff2941b3605a4
        MD = 9e9e469ca9226cd012f5c9cc39c96adc22f420030fcee305a0ed27974e3c802701603dac873ae447
            6e9c3d57e55524483fc01adaef87daa9e304078c59802757

        Method = sha3-512
        Msg = 0ce9f8c3a990c268f34efd9befdb0f7c4ef8466cfdb01171f8de70dc5fefa92acbe93d29e2ac1a5c
            2979129f1ab08c0e77de7924ddf68a209cdfa0adc62f85c18637d9c6b33f4ff8
        MD = b018a20fcf831dde290e4fb18c56342efe138472cbe142da6b77eea4fce52588c04c808eb32912fa
            a345245a850346faec46c3a16d39bd2e1ddb1816bc57d2da
        """)
}
