"""The open-loop engine: sends each request at its scheduled time and notes when it was due, sent, and responded to.

One thread, one loop. It uses codecs (:mod:`infscale.load.engine.wire`) and an
:class:`~infscale.load.engine.interfaces.Io`, and knows nothing of models, frameworks or statistics. A request is *due*
when the loop gets to it and *sent* when a connection is free for it; the wait for a connection is part of the response
time.
"""

import heapq
import os
from array import array
from collections.abc import Mapping, Sequence

from infscale.load.engine import status
from infscale.load.engine.interfaces import END, READ, WRITE, CodecFactory, GiveUp, Io, Limits, Rows
from infscale.load.engine.pool import Connection, Pool
from infscale.load.engine.status import Finished

READS, TURN_NS = 8, 1_000_000
"""Most reads of one connection, and about the most time (ns) for them, before others have their turn: a peer may
send without end."""

SLOW_NS = 1_000_000
"""Time (ns) that a codec takes for one read from which on less is read at a time: bytes that are costly to read, such
as chunks of one byte, must not hold up what is due."""

READ_SIZE, MOST_READ = 16_384, 1_048_576
"""Fewest and most bytes of a read."""

MOST_TRIES = 20
"""How often a request is sent that the server refuses without processing it."""

PAUSE_NS, MOST_PAUSE_NS = 1_000_000, 20_000_000
"""Time between the second time that a request is refused so and its next try, ns; each further pause is twice as long,
up to the second number. The first time may have been before the server's limit was known: it is sent again at once."""

MOST_REASONS, MOST_REASON = 200, 300
"""How many different reasons of failures are kept, and the characters of each: a server may put anything into them."""

NO_REASONS: Mapping[int, str] = {}
"""What is known of why requests failed, where nothing is."""


class Engine:
    """Runs one schedule.

    Args:
        io: sockets, waiting and the clock.
        codec: makes the codec of a new connection.
        schedule: int64 ns since the trial's start, ascending.
        choice: the body that each request carries, as an index into the codec's pool.
        limits: timeout and connections.
        targets: number of targets that ``io`` connects to.
        rows: of the schedule's length, which are filled; None makes them.
    """

    def __init__(
        self,
        io: Io,
        codec: CodecFactory,
        schedule: "array[int]",
        choice: "array[int]",
        limits: Limits,
        targets: int = 1,
        rows: Rows | None = None,
    ):
        self._io = io
        self._now = io.now
        self._codec = codec
        self._schedule = schedule
        self._choice = choice
        self._limits = limits
        self.rows = rows or Rows(len(schedule))
        self.opened = 0
        self.lost = 0
        self.retried = 0
        self.error = ""
        self.limit = status.PENDING  # the first limit of this process that kept a connection from being opened
        self.reasons: dict[tuple[int, str], int] = {}  # how many requests failed, by outcome and reason
        self._start = 0
        self._count = 0  # nothing is due before the trial runs
        self._next = 0
        self._begun = 0  # attempts at a connection
        self._oldest = 0
        self._settled = 0
        self._looked = self._late = 0  # requests whose time to succeed is over, and how many of them are late
        # A connection's number modulo the number of targets is its target. Each target has its share of connections.
        self._pools = [Pool(k, max(1, limits.connections // targets)) for k in range(targets)]
        self._live: dict[int, Connection] = {}  # by number
        self._by_fd: dict[int, Connection] = {}
        self._tries: dict[int, int] = {}  # of requests that were refused
        self._later: list[tuple[int, int, Pool]] = []  # a heap of those that pause: until when, request, pool

    # --- before the trial ---

    def open(self, patience_ns: int) -> None:
        """Open the first connections and wait until they are usable, or for ``patience_ns``."""
        self._start = self._now()
        end = self._start + patience_ns
        for k in range(min(self._limits.open_first, self._limits.connections)):
            self._connect(self._pools[k % len(self._pools)])
        while any(pool.opening for pool in self._pools) and self._now() < end:
            self._handle(self._io.wait(end))

    # --- the trial ---

    def run(self, start: int) -> None:
        """Run the schedule from the monotonic time ``start`` until every request has an outcome, or it is given up."""
        self._start = start
        self._count = count = len(self._schedule)
        schedule, rows, wait, give_up = self._schedule, self.rows, self._io.wait, self._limits.give_up
        deadline = schedule[0] + self._limits.timeout_ns if count else 0
        while True:
            t = self._send_due()
            if self._later:
                self._send_later(t)
            if t >= deadline:
                deadline = self._expire(t)
            if self._settled >= count:
                return
            if give_up and self._late_by(t, give_up) >= give_up.most:
                break
            i = self._next
            wake = schedule[i] if i < count and schedule[i] < deadline else deadline
            if self._later:
                wake = min(wake, self._later[0][0])
            if self._handle(wait(start + wake)):
                break
        for j in range(count):
            if rows.outcome[j] == status.PENDING:
                if rows.sent[j] < 0:
                    rows.outcome[j], rows.done[j] = status.UNSENT, -1
                else:
                    self._settle([self._given_up(j)], self._now() - start)

    def _late_by(self, t: int, give_up: GiveUp) -> int:
        """Return how many of the requests whose time to succeed is over at ``t`` have not succeeded in it."""
        schedule, rows, i = self._schedule, self.rows, self._looked
        while i < self._next and schedule[i] + give_up.after_ns <= t:
            in_time = rows.outcome[i] == status.OK and rows.done[i] - schedule[i] <= give_up.after_ns
            self._late += not in_time and schedule[i] >= give_up.from_ns
            i += 1
        self._looked = i
        return self._late

    def _send_due(self) -> int:
        """Dispatch the requests that are due, and return the time (ns since the start)."""
        schedule, count, now, start = self._schedule, self._count, self._now, self._start
        t = now() - start
        i, pool = self._next, self._pools[0]
        while i < count and schedule[i] <= t:
            self.rows.due[i] = t
            self._next = i + 1
            self._dispatch(i, pool)
            i += 1
            t = now() - start
        return t

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._live.values()):
            self._drop(connection)

    # --- requests ---

    def _dispatch(self, i: int, pool: Pool) -> None:
        idle = pool.idle
        while idle:
            connection = idle.pop()
            codec = connection.codec
            if codec.free > 0 and not codec.closing:
                if codec.free > 1 and self._limits.keep_alive:
                    idle.appendleft(connection)  # streams go round the connections
                else:
                    connection.idle = False
                self._send(connection, i)
                return
            connection.idle = False
        pool.waiting.append(i)
        self._more_connections(pool)

    def _send(self, connection: Connection, i: int) -> None:
        rows = self.rows
        if rows.sent[i] < 0:  # else it was refused before
            rows.sent[i] = self._now() - self._start
        rows.connection[i] = connection.number
        connection.carried = True
        connection.spent = not self._limits.keep_alive
        codec = connection.codec
        data = codec.send(self._choice[i], i)
        if not data or connection.out or codec.out:
            rows.bytes_out[i] = len(data) or codec.held
            if data:
                connection.out.append(memoryview(data))
            self._flush(connection)
            return
        rows.bytes_out[i] = size = len(data)
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            connection.unsent = size
            self._broken(connection, error.errno)
            return
        if sent < size:
            connection.out.append(memoryview(data)[sent:])
            self._watch(connection, READ | WRITE)

    def _flush(self, connection: Connection) -> None:
        out, codec = connection.out, connection.codec
        if codec.out:
            out.extend(map(memoryview, codec.out))
            codec.out.clear()
        try:
            while out:
                parts = [out[k] for k in range(min(len(out), 64))]
                sent = connection.sock.sendmsg(parts)
                while out and sent >= len(out[0]):
                    sent -= len(out.popleft())
                if sent:
                    out[0] = out[0][sent:]
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(connection, error.errno)
            return
        self._watch(connection, READ | WRITE if out else READ)

    def _settle(
        self, finished: Sequence[Finished], now: int, reasons: Mapping[int, str] = NO_REASONS, otherwise: str = ""
    ) -> None:
        """Give requests their outcomes; ``reasons`` of failures by token, ``otherwise`` of those that it lacks."""
        rows = self.rows
        for token, outcome, size, first in finished:
            if rows.outcome[token] == status.PENDING:
                rows.outcome[token] = outcome
                rows.done[token] = now
                rows.first[token] = first if size else -1
                rows.bytes_in[token] = size
                self._settled += 1
                if outcome != status.OK and (reason := reasons.get(token, otherwise)):
                    self._count_reason(outcome, reason)

    def _count_reason(self, outcome: int, reason: str) -> None:
        key = outcome, "".join(c if c.isprintable() else " " for c in reason[:MOST_REASON])
        if key not in self.reasons and len(self.reasons) >= MOST_REASONS:
            key = outcome, "(other reasons)"
        self.reasons[key] = self.reasons.get(key, 0) + 1

    def _expire(self, t: int) -> int:
        """Give up the requests past their timeout, and return when to look again (ns since the start)."""
        schedule, rows, timeout = self._schedule, self.rows, self._limits.timeout_ns
        late = []
        i = self._oldest
        while i < self._next and schedule[i] + timeout <= t:
            if rows.outcome[i] == status.PENDING:
                late.append(i)
            i += 1
        self._oldest = i
        self._settle([self._given_up(i) for i in late], t)
        for i in late:
            connection = self._live.get(rows.connection[i])
            if connection is not None:
                connection.codec.cancel(i)
                self._take_off_unsent(connection, i)
                self._after(connection)
        while self._oldest < self._next and rows.outcome[self._oldest]:
            self._oldest += 1
        return schedule[self._oldest] + timeout if self._oldest < len(schedule) else t + timeout

    def _given_up(self, i: int) -> Finished:
        """Return the outcome of a request that is given up, with what its stream has brought."""
        connection = self._live.get(self.rows.connection[i])
        return (i, status.TIMEOUT, *(connection.codec.so_far(i) if connection is not None else (0, 0)))

    # --- connections ---

    def _connect(self, pool: Pool) -> bool:
        """Begin a connection for the request that has waited longest, and return whether to begin more.

        If that fails at once, the request fails, too; but where a limit of this process is the reason, and another
        connection is there, it waits for that one.
        """
        number = self._begun * len(self._pools) + pool.target
        self._begun += 1
        try:
            sock = self._io.connect(pool.target)
        except OSError as error:
            reason = f"connect: {error.strerror or error}"
            self.error = self.error or reason
            outcome = status.of_errno(error.errno, status.REFUSED)
            if outcome != status.REFUSED:
                self.limit = self.limit or outcome
                if pool.live:
                    return False
            self._fail_one(pool, outcome, reason)
            return True
        self.opened += 1
        connection = Connection(number, sock, self._codec(), pool)
        self._live[number] = self._by_fd[connection.fd] = connection
        pool.live += 1
        pool.opening += 1
        return True

    def _connected(self, connection: Connection) -> None:
        error = connection.sock.getsockopt(1, 4)  # SOL_SOCKET, SO_ERROR
        if error:
            self._refused(connection, f"connect: {os.strerror(error)}", status.of_errno(error, status.REFUSED))
            return
        connection.connecting = False
        hello = connection.codec.start()
        if hello:
            connection.out.append(memoryview(hello))
        self._flush(connection)
        if connection.live and connection.codec.ready:
            connection.pool.opening -= 1
            self._free(connection)

    def _refused(self, connection: Connection, reason: str, outcome: int) -> None:
        self.error = self.error or reason
        connection.pool.opening -= 1
        self._drop(connection)
        self._fail_one(connection.pool, outcome, reason)
        self._more_connections(connection.pool)

    def _fail_one(self, pool: Pool, outcome: int, reason: str) -> None:
        """Let the request that has waited longest fail with the connection attempt that failed."""
        while pool.waiting:
            i = pool.waiting.popleft()
            if self.rows.outcome[i] == status.PENDING:
                self._settle([(i, outcome, 0, 0)], self._now() - self._start, otherwise=reason)
                return

    def _more_connections(self, pool: Pool) -> None:
        """Open connections for the waiting requests, up to the limit."""
        while pool.opening < len(pool.waiting) and pool.live < pool.limit:
            if not self._connect(pool):
                return

    def _free(self, connection: Connection) -> None:
        """Give a connection that can take requests those that wait; without any it becomes idle."""
        codec, outcome, pool = connection.codec, self.rows.outcome, connection.pool
        while pool.waiting and codec.free > 0 and not codec.closing and not connection.spent:
            i = pool.waiting.popleft()
            if outcome[i] == status.PENDING:
                self._send(connection, i)
        if codec.free > 0 and not (codec.closing or connection.spent or connection.idle) and connection.live:
            connection.idle = True
            pool.idle.append(connection)

    def _broken(self, connection: Connection, error: int | None) -> None:
        """Give up a connection that cannot be sent on, after reading what the server said before, such as a 413."""
        connection.unsent += sum(map(len, connection.out))
        connection.out.clear()
        connection.codec.out.clear()
        connection.spent = True  # nothing more can be sent on it
        self._not_idle(connection)
        if status.of_errno(error, status.RESET) == status.RESET:
            self._readable(connection, END)
        if connection.live:
            self._lose(connection, error)

    def _take_off_unsent(self, connection: Connection, token: int) -> None:
        """Count no byte of an ended request as sent that was not.

        What HTTP/2 has given to the connection counts as sent: there, bytes of several requests wait together.
        """
        codec = connection.codec
        left = codec.withheld.pop(token, 0)
        if codec.single and (codec.closing or connection.spent):
            left += connection.unsent + sum(map(len, connection.out))
            connection.unsent = 0
        self.rows.bytes_out[token] -= left

    def _not_idle(self, connection: Connection) -> None:
        """Offer a connection for no further request."""
        if connection.idle:
            connection.idle = False
            connection.pool.idle.remove(connection)

    def _again(self, connection: Connection) -> None:
        """Let requests wait once more that the server refused without processing them (RFC 9113, section 8.7)."""
        refused, outcome = connection.codec.refused, self.rows.outcome
        while refused:
            token, instead = refused.pop()
            connection.codec.withheld.pop(token, None)
            tries = self._tries[token] = self._tries.get(token, 1) + 1
            if tries > MOST_TRIES:
                reason = f"the server refused it {MOST_TRIES} times without processing it"
                self._settle([(token, instead, 0, 0)], self._now() - self._start, otherwise=reason)
            elif outcome[token] == status.PENDING and tries == 2:
                self._retry(token, connection.pool)
            elif outcome[token] == status.PENDING:
                pause = min(PAUSE_NS << (tries - 3), MOST_PAUSE_NS)
                heapq.heappush(self._later, (self._now() - self._start + pause, token, connection.pool))

    def _send_later(self, t: int) -> None:
        """Send the requests again whose pause has ended."""
        while self._later and self._later[0][0] <= t:
            _, i, pool = heapq.heappop(self._later)
            if self.rows.outcome[i] == status.PENDING:
                self._retry(i, pool)

    def _retry(self, i: int, pool: Pool) -> None:
        self.retried += 1
        Engine._dispatch(self, i, pool)

    def _lose(self, connection: Connection, error: int | None = None) -> None:
        """Fail the requests of a connection that has ended, by a system call's ``error`` (errno) or without one."""
        finished: list[Finished] = []
        codec = connection.codec
        codec.end(finished)
        for token, *_ in finished:
            self._take_off_unsent(connection, token)
        ended = [(token, status.of_errno(error, outcome), size, first) for token, outcome, size, first in finished]
        why = os.strerror(error) if error else "the server closed the connection"
        self._settle(ended, self._now() - self._start, codec.reasons, why)
        if not codec.ready or connection.connecting:
            outcome = status.of_errno(error, status.REFUSED if connection.connecting else status.BAD_RESPONSE)
            self._refused(connection, f"the connection ended before it was usable: {codec.message or why}", outcome)
            return
        self.lost += bool(finished)
        self._drop(connection)
        self._fail_if_useless(connection)
        self._more_connections(connection.pool)

    def _drop(self, connection: Connection) -> None:
        if connection.live:
            connection.live = False
            connection.pool.live -= 1
            del self._live[connection.number], self._by_fd[connection.fd]
            self._io.close(connection.sock)
        self._not_idle(connection)

    def _fail_if_useless(self, connection: Connection) -> None:
        """Fail a waiting request with a connection that was set up and ended before it carried any.

        Else a server that does so each time would be connected to without end.
        """
        if not connection.carried:
            why = connection.codec.message or "the server closed the connection"
            self._fail_one(connection.pool, status.RESET, f"the connection ended before it carried a request: {why}")

    def _watch(self, connection: Connection, events: int) -> None:
        if connection.watched != events and connection.live:
            connection.watched = events
            self._io.watch(connection.sock, events)

    def _after(self, connection: Connection) -> None:
        """Do what follows from a change of the codec's state: send, close, or offer the connection for requests."""
        codec = connection.codec
        if codec.out:
            self._flush(connection)
        if not connection.live:  # given up meanwhile, and the request that it cost has failed
            return
        if (codec.closing or connection.spent) and not codec.tokens():
            self._drop(connection)
            self._fail_if_useless(connection)
            self._more_connections(connection.pool)
        elif codec.free > 0 and not connection.idle:
            self._free(connection)

    def _handle(self, events: Sequence[tuple[int, int]]) -> bool:
        """Handle a batch of events; return True when the owner asks to stop."""
        by_fd, opened, several = self._by_fd, self._begun * len(self._pools), len(events) > 1
        for fd, mask in events:
            connection = by_fd.get(fd)
            if connection is None:
                if fd == self._io.owner:
                    return True
            elif connection.connecting:
                # One that was opened during this batch may have got the descriptor of another: not its event.
                if connection.number < opened:
                    self._connected(connection)
            else:
                if mask & WRITE:
                    self._flush(connection)
                if mask != WRITE and connection.live:
                    self._readable(connection, mask)
            if several:
                self._send_due()  # a large batch of responses must not delay what is due
        return False

    def _readable(self, connection: Connection, mask: int) -> None:
        """Read what has arrived: edge-triggered events come once for each arrival.

        After some reads the event is asked for again. Where an end lies behind the data (``mask``), the connection is
        read to it before anybody else gets the connection.
        """
        codec, more, ending = connection.codec, True, mask & ~(READ | WRITE)
        reads, until = 0, self._now() + TURN_NS
        if ending:
            self._not_idle(connection)
        while more and connection.live:
            if reads == READS or self._now() > until:
                self._io.watch(connection.sock, connection.watched)
                return
            reads += 1
            try:
                data = connection.sock.recv(connection.read_size)
            except BlockingIOError:
                if ending:
                    self._after(connection)
                return
            except OSError as error:
                self._lose(connection, error.errno)
                return
            if not data:
                self._lose(connection)
                return
            full = len(data) == connection.read_size
            more = full or mask != READ  # beside the data there is an end, or an error
            now = self._now() - self._start
            finished: list[Finished] = []
            if codec.ready:
                codec.receive(data, now, finished)
            else:
                self._set_up(connection, data, now, finished)
            if self._now() - self._start - now > SLOW_NS:
                connection.read_size = max(READ_SIZE, connection.read_size // 4)
            elif full and connection.read_size < MOST_READ:
                connection.read_size *= 4
            if finished:
                if connection.out or connection.unsent or codec.withheld:
                    for token, *_ in finished:
                        self._take_off_unsent(connection, token)
                self._settle(finished, now, codec.reasons)
                if codec.reasons:
                    codec.reasons.clear()
            if not ending:
                self._after(connection)
            if codec.refused:
                self._again(connection)

    def _set_up(self, connection: Connection, data: bytes, now: int, finished: list[Finished]) -> None:
        """Take what arrives before a connection is usable: a handshake."""
        codec = connection.codec
        codec.receive(data, now, finished)
        if codec.closing and not codec.ready:
            if not connection.spent:
                self._flush(connection)  # a TLS alert may say why
            if connection.live:
                self._lose(connection)
        else:
            connection.pool.opening -= codec.ready  # one that is ready and closing is dropped afterwards
