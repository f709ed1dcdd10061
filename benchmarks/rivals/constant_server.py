"""The cheapest server there is: reads whatever comes and sends one constant answer, without looking at either."""

from __future__ import annotations

import select
import socket
import sys

BODY = b'{"status":"success","value":{"crowdfundingActive":true},"logLines":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


def main() -> None:
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    epoll = select.epoll()
    epoll.register(listening, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for handle, _ in epoll.poll():
            if handle == listening.fileno():
                connection, _address = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
            elif connections[handle].recv(65536):
                connections[handle].sendall(ANSWER)
            else:
                connections.pop(handle).close()


if __name__ == "__main__":
    main()
