// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What is on its way in one direction of a connection, in the order of its coming.
struct ProxyLane {
    /// Something that arrives on the other side.
    enum Content {
        case bytes(ArraySlice<UInt8>)
        /// The sender sends no more.
        case end
        /// The sender has reset the connection.
        case reset
        /// The proxy itself ends the connection, in order.
        case finish
    }

    private struct Item {
        var content: Content
        var sent: ContinuousClock.Instant
    }

    private var items: [Item] = []
    /// Items before this one have arrived.
    private var first = 0
    /// Bytes that are on their way.
    private(set) var byteCount = 0

    mutating func append(_ content: Content, sent: ContinuousClock.Instant) {
        if case .bytes(let bytes) = content {
            if bytes.isEmpty { return }
            byteCount += bytes.count
        }
        items.append(Item(content: content, sent: sent))
    }

    /// What arrives next.
    var next: Content? { first < items.count ? items[first].content : nil }

    /// When what arrives next was sent; nothing overtakes it, whenever that was sent.
    var nextSent: ContinuousClock.Instant? { first < items.count ? items[first].sent : nil }

    /// Takes away the next content, or so many bytes of it.
    mutating func removeNext(byteCount count: Int = 0) {
        if case .bytes(let bytes) = items[first].content {
            byteCount -= count
            items[first].content = .bytes(bytes.dropFirst(count))
            if count < bytes.count { return }
        }
        items[first].content = .end  // lets go of the bytes
        first += 1
        if first == items.count || first > 1024 {
            items.removeFirst(first)
            first = 0
        }
    }
}
