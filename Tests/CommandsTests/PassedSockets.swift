// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport

/// Goes before a program, which then gets sockets as from a service manager (sd_listen_fds(3)).
///
/// - Parameters:
///   - sockets: kind and address of each one, such as `tcp=127.0.0.1` and `unix=PATH`, on a port that
///     the kernel chooses; `@` begins an abstract name.
///   - variables: replace what the service manager sets; of the empty ones there are none.
func passing(_ sockets: [String], _ variables: [String: String] = [:]) -> [String] {
    let script = """
        import fcntl, os, socket, sys
        def make(kind, address):
            if kind == 'file':
                return os.open('/dev/null', os.O_RDONLY)
            if kind == 'pair':
                return socket.socketpair()[0].detach()
            family = socket.AF_INET6 if ':' in address else socket.AF_INET
            if kind.startswith('unix'):
                family = socket.AF_UNIX
            types = {'udp': socket.SOCK_DGRAM, 'unix-packets': socket.SOCK_SEQPACKET}
            made = socket.socket(family, types.get(kind, socket.SOCK_STREAM))
            if address:
                made.bind(address.replace('@', '\\0') if family == socket.AF_UNIX else (address, 0))
            if kind in ('tcp', 'unix', 'unix-packets'):
                made.listen()
            return made.detach()
        words = sys.argv[1].split()
        made = [fcntl.fcntl(make(*word.split('=')), fcntl.F_DUPFD, 100) for word in words]
        for number, descriptor in enumerate(made):
            os.dup2(descriptor, 3 + number)
            os.close(descriptor)
        os.closerange(3 + len(made), 100)
        names = ':'.join(f'name{number}' for number in range(len(made)))
        os.environ.update(
            LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(made)), LISTEN_FDNAMES=names)
        for word in sys.argv[2].split():
            name, value = word.split('=')
            if value:
                os.environ[name] = value
            else:
                del os.environ[name]
        os.execvp(sys.argv[3], sys.argv[3:])
        """
    let changes = variables.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
    return ["python3", "-c", script, sockets.joined(separator: " "), changes]
}
