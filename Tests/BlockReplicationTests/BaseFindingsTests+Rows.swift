// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LogicalVolumes

@testable import BlockReplication

extension BaseFindingsTests {
    private static let size = 1 << 30
    private static let smaller = 1 << 29
    private static let larger = 2 << 30
    private static let changed = [ByteRange(offset: 4096, length: 8192)]
    static let other = BaseFindings.Counter.value(
        TargetMark(text: "m2", equivalents: ["m2"]))

    private static func noMap(_ reason: String) -> Expected {
        .compares(.failed("vg0/root.old: no change map: \(reason)", advice: nil))
    }
    static let nothingInCommon = "it has nothing in common with vg0/root.new"

    static let rows: [Row] = [
        Row("all is as the last run left it", .reads(changed)) { _ in },
        Row("the source is writable and no program has it open", .reads(changed)) {
            $0.source = thinVolume("root.new", attributes: "Vwi-a-tz--")
        },
        Row("the source is read-only and open", .reads(changed)) {
            $0.source = thinVolume("root.new", attributes: "Vri-aotz--")
        },
        Row("nothing has changed", .reads([])) {
            $0.changes = ChangeMap([], size: size, oldSize: size)
        },
        Row("the counter has another text for the same state", .reads(changed)) {
            $0.counter = .value(TargetMark(text: "m2", equivalents: ["m1", "m2"]))
        },
        Row("a later record of the target agrees, an earlier one does not", .reads(changed)) {
            $0.more = [$0.record]
            $0.more[0].number = 2
            $0.more[0].mark = "m0"
        },
        Row("the base has a record of another target as well", .reads(changed)) {
            $0.more = [$0.record]
            $0.more[0].target = "bb"
            $0.more[0].number = 9
            $0.more[0].mark = "m0"
        },
        Row("everything has changed", .reads([ByteRange(0, to: size)])) {
            $0.changes = ChangeMap([ByteRange(0, to: size)], size: size, oldSize: size)
        },
        Row("the map ends beyond the source", .reads([ByteRange(4096, to: size)])) {
            $0.changes = ChangeMap([ByteRange(4096, to: .max)], size: size, oldSize: size)
        },
        Row("all of the map is beyond the source", .reads([])) {
            $0.changes = ChangeMap([ByteRange(size, to: larger)], size: size, oldSize: size)
        },
        Row("the source was extended before the run", .reads([ByteRange(size, to: larger)])) {
            ($0.source.size, $0.sourceSize) = (larger, larger)
            $0.changes = ChangeMap([], size: larger, oldSize: size)
        },
        Row("the source was reduced before the run", .reads([])) {
            ($0.source.size, $0.sourceSize) = (smaller, smaller)
            $0.changes = ChangeMap([ByteRange(smaller, to: size)], size: smaller, oldSize: size)
        },
        Row("the source is the origin of the base", .reads(changed)) {
            $0.source.uuid = "uuid-root"
            ($0.source.origin, $0.source.originUUID) = (nil, nil)
        },
        Row("the source and the base are classic snapshots", .reads(changed)) {
            makeClassic(&$0.source)
            $0.makeBase(makeClassic)
        },
        Row("the source is the origin of the base, a classic snapshot", .reads(changed)) {
            ($0.source.uuid, $0.source.segmentType) = ("uuid-root", "linear")
            ($0.source.origin, $0.source.originUUID) = (nil, nil)
            $0.makeBase(makeClassic)
        },
        Row("no run has left a base", .compares(.noEarlierRun)) { $0.base = nil },
        Row("the base has no record", .compares(.unknownReplica)) { $0.isRecorded = false },
        Row("the record is that of another target", .compares(.unknownReplica)) {
            $0.identity = "bb"
        },
        Row("the base was cloned with its tags", .compares(.unknownReplica)) {
            $0.base?.uuid = "another"
        },
        Row("the volume group was restored from its backup", .compares(.unknownReplica)) {
            $0.base?.groupUUID = "another"
        },
        Row("LVM has forgotten the base's origin, as after a merge", .compares(.unknownReplica)) {
            $0.base?.originUUID = nil
        },
        Row("the base has become a snapshot of another volume", .compares(.unknownReplica)) {
            $0.base?.originUUID = "another"
        },
        Row("the pool has given the base's id to another volume", .compares(.unknownReplica)) {
            $0.base?.thinID = 99
        },
        Row("the base was made again in a later transaction", .compares(.unknownReplica)) {
            $0.base?.transaction = 99
        },
        Row("the base was extended", .compares(.unknownReplica)) { $0.base?.size = larger },
        Row("a program has the writable source open", .compares(.sourceInUse)) {
            $0.source = thinVolume("root.new", attributes: "Vwi-aotz--")
        },
        Row("LVM's attributes are cut short", .reads(changed)) {
            $0.source = thinVolume("root.new", attributes: "V")
        },
        Row("the target has no counter", .compares(.noCounter(nil))) {
            $0.counter = .missing(reason: nil)
        },
        Row("the target has no counter for a known reason", .compares(.noCounter("RAID"))) {
            $0.counter = .missing(reason: "RAID")
        },
        Row("another program wrote to the target", .compares(.written)) { $0.counter = other },
        Row("a later record says that the target was written to", .compares(.written)) {
            $0.more = [$0.record]
            $0.more[0].number = 4
            $0.more[0].mark = "m0"
        },
        Row("the counter has the text of the record, which proves nothing", .compares(.written)) {
            $0.counter = .value(TargetMark(text: "m1", equivalents: []))
        },
        Row("the source is in another group", noMap("vg0/root.new is of another volume group")) {
            $0.source.groupUUID = "another"
        },
        Row("the source is the base", noMap("it is no snapshot of root")) {
            $0.source.uuid = "uuid-root.old"
        },
        Row("the source is a snapshot of another volume", noMap("it is no snapshot of home")) {
            $0.source.uuid = "uuid-root.new"
            ($0.source.origin, $0.source.originUUID) = ("home", "uuid-home")
        },
        Row("the base is no snapshot", noMap("it is no snapshot of root")) {
            $0.makeBase { ($0.origin, $0.originUUID) = (nil, nil) }
        },
        Row("the source is in another pool", noMap(nothingInCommon)) {
            $0.source = thinVolume("root.new", attributes: "Vri-a-tz--")
            $0.source.pool = "fast"
            $0.makeBase { _ in }
        },
        Row("the pool's id of the source is unknown", noMap(nothingInCommon)) {
            $0.source = thinVolume("root.new", attributes: "Vri-a-tz--")
            $0.source.thinID = nil
            $0.makeBase { _ in }
        },
        Row("only the source is a classic snapshot", noMap(nothingInCommon)) {
            makeClassic(&$0.source)
            $0.makeBase { _ in }
        },
        Row("only the base is a classic snapshot", noMap(nothingInCommon)) {
            $0.source = thinVolume("root.new", attributes: "Vri-a-tz--")
            $0.makeBase(makeClassic)
        },
        Row("the source was extended during the run", .compares(.resized)) {
            $0.sourceSize = size
            $0.changes = ChangeMap([], size: larger, oldSize: size)
        },
        Row("the opened source has a sector more", .compares(.resized)) {
            $0.sourceSize = size + 512
        },
        Row("the opened source has a sector less", .compares(.resized)) {
            $0.sourceSize = size - 512
        },
        Row("the target's samples are others", .compares(.noReplica)) { $0.sampleDigest = "dead" },
        Row("a sample outside of the changes differs", .compares(.differs(at: 65536))) {
            $0.differences = [65536..<131_072, 1 << 20..<2 << 20]
        },
        Row("the first byte differs", .compares(.differs(at: 0))) { $0.differences = [0..<1] },
        Row("another program wrote while samples were read", .compares(.writtenMeanwhile)) {
            $0.counterAtEnd = other
        },
        Row("the counter is gone at the end", .compares(.noCounter("gone"))) {
            $0.counterAtEnd = .missing(reason: "gone")
        },
        Row("a finding failed", .compares(.failed("no map", advice: "wait"))) {
            $0.failure = .failed("no map", advice: "wait")
        },
        Row("a finding failed, and the source is in use", .compares(.sourceInUse)) {
            $0.source = thinVolume("root.new", attributes: "Vwi-aotz--")
            $0.failure = .failed("no map", advice: nil)
        },
        Row("nothing is known yet", .finds("counter")) {
            ($0.counter, $0.changes, $0.sampleDigest) = (nil, nil, nil)
            ($0.differences, $0.counterAtEnd) = (nil, nil)
        },
        Row("only the counter is missing", .finds("counter")) { $0.counter = nil },
        Row("only the map is missing", .finds("changes")) { $0.changes = nil },
        Row("only the target's samples are missing", .finds("sampleDigest")) {
            $0.sampleDigest = nil
        },
        Row("only the comparison of samples is missing", .finds("differences")) {
            $0.differences = nil
        },
        Row("only the counter at the end is missing", .finds("counterAtEnd")) {
            $0.counterAtEnd = nil
        },
    ]
}

/// A thin volume of 1 GiB as lvs(8) reports it.
func thinVolume(_ name: String, attributes: String = "Vri---tz-k") -> LogicalVolume {
    let report = [
        "vg_name": "vg0", "vg_uuid": "group", "lv_name": name, "lv_uuid": "uuid-\(name)",
        "lv_size": "\(1 << 30)", "segtype": "thin", "data_stripes": "1", "pool_lv": "pool",
        "origin": "root", "origin_uuid": "uuid-root", "thin_id": "5", "transaction_id": "8",
        "lv_tags": "", "vg_free": "0", "vg_extent_size": "4194304", "lv_attr": attributes,
        "lv_dm_path": "/dev/mapper/vg0-\(name)",
    ]
    guard let json = try? JSONEncoder().encode(report),
        let volume = try? JSONDecoder().decode(LogicalVolume.self, from: json)
    else { fatalError("the report of lvs(8) has another form") }
    return volume
}

/// Turns a thin volume into a classic snapshot.
private func makeClassic(_ volume: inout LogicalVolume) {
    volume.segmentType = "linear"
    (volume.pool, volume.thinID) = (nil, nil)
    volume.storeSize = 64 << 20
}
