"""Loops of the simulation, compiled by numba: requests over replicas, in blocks, each a pure function of its draws.

Nothing here draws at random: arrival times, work and 64 random bits a request come in as arrays, so that a loop can be
compared request for request with one in plain Python. State is kept in arrays that go from block to block.

A replica has k workers and one queue, first come, first served. Where workers have their cores to themselves, a request
that finds m others begins at once if m < k, else when all but k − 1 of them have left: its departure is known on
arrival, and departures of a replica are kept sorted in a ring. Where replicas share c cores, n busy workers advance at
min(1, c/n) each, so that departures are kept by virtual time, of which 1 s is 1 s of a worker's work.
"""

from typing import Any

import numba
import numpy as np

IN_TURN, RANDOM, LEAST, TWO, TWO_REPLACED, PINNED = range(6)
"""How a replica is chosen: requests in turn; at random; the fewest requests under way (ties at random); the fewer of
two distinct replicas drawn at random, or of two that may be the same (ties: the first drawn); that of a connection
drawn at random."""

Array = np.ndarray[Any, Any]

# --------------------------------------------------------------------------------------------- choosing


@numba.njit(cache=True, inline="always")
def _scaled(bits: Any, count: Any) -> Any:
    """Return a whole number below ``count`` from 32 random bits."""
    return np.int64((bits * np.uint64(count)) >> np.uint64(32))


@numba.njit(cache=True)
def _candidates(rule: int, bits: Any, turn: int, pins: Array, count: int) -> tuple[int, int]:
    """Return the replicas that come into question by a rule other than LEAST; the second is −1 for none."""
    high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
    if rule == IN_TURN:
        return turn % count, -1
    if rule == PINNED:
        return pins[_scaled(high, len(pins))], -1
    first = _scaled(high, count)
    if rule == RANDOM or count == 1:
        return first, -1
    if rule == TWO_REPLACED:
        return first, _scaled(low, count)
    second = _scaled(low, count - 1)
    return first, second + (second >= first)


@numba.njit(cache=True)
def _least(bits: Any, size: Array, order: Array, start: Array) -> int:
    """Return one of the replicas with the fewest requests."""
    ties = start[size[order[0]] + 1]
    return int(order[_scaled(bits >> np.uint64(32), ties)])


@numba.njit(cache=True)
def _swap(order: Array, position: Array, j: int, to: int) -> None:
    other, at = order[to], position[j]
    order[to], order[at] = j, other
    position[j], position[other] = to, at


@numba.njit(cache=True)
def _more(j: int, size: Array, order: Array, position: Array, start: Array) -> None:
    """Count a request more of replica j; ``order`` stays sorted, ``start[c]`` is where c requests or more begin."""
    above = size[j] + 1
    _swap(order, position, j, start[above] - 1)
    start[above] -= 1
    size[j] += 1


@numba.njit(cache=True)
def _fewer(j: int, size: Array, order: Array, position: Array, start: Array) -> None:
    own = size[j]
    _swap(order, position, j, start[own])
    start[own] += 1
    size[j] -= 1


# ------------------------------------------------------------------------------------------------ a heap


@numba.njit(cache=True)
def _push(times: Array, items: Array, length: int, time: float, item: int) -> int:
    """Put an item on a binary heap, and return the new length."""
    i = length
    while i > 0:
        parent = (i - 1) >> 1
        if times[parent] <= time:
            break
        times[i], items[i] = times[parent], items[parent]
        i = parent
    times[i], items[i] = time, item
    return length + 1


@numba.njit(cache=True)
def _pop(times: Array, items: Array, length: int) -> int:
    """Remove the first item of a binary heap, and return the new length."""
    length -= 1
    time, item, i = times[length], items[length], 0
    while True:
        child = 2 * i + 1
        if child >= length:
            break
        if child + 1 < length and times[child + 1] < times[child]:
            child += 1
        if times[child] >= time:
            break
        times[i], items[i] = times[child], items[child]
        i = child
    times[i], items[i] = time, item
    return length


# ----------------------------------------------------------------------------- workers with their own cores


@numba.njit(cache=True)
def dedicated(
    rule: int,
    workers: int,
    begin: int,
    arrive: Array,
    work: Array,
    bits: Array,
    pins: Array,
    ring: Array,
    head: Array,
    size: Array,
    order: Array,
    position: Array,
    start: Array,
    times: Array,
    items: Array,
    counts: Array,
    response: Array,
    chosen: Array,
) -> int:
    """Send the requests of a block from ``begin`` on, and return how many are done: fewer where a ring is full.

    Args:
        rule, workers: how a replica is chosen, and k.
        arrive, work, bits: of each request: time and work in s, and random bits.
        pins: the replica of each connection.
        ring: departures of each replica's requests in ascending order, shape (replicas, a power of two).
        head, size: where a replica's departures begin in its ring, and how many there are.
        order, position, start: replicas by number of requests, as :func:`_more` keeps them; for LEAST alone.
        times, items: heap of departures with their replica; for LEAST alone.
        counts: requests so far [0]; length of the heap [1].
        response, chosen: of each request: its time in s, and its replica; written here.
    """
    replicas, mask = ring.shape[0], ring.shape[1] - 1
    done, length = counts[0], counts[1]
    stopped = len(arrive)
    for i in range(begin, len(arrive)):
        now = arrive[i]
        if rule == LEAST:
            while length > 0 and times[0] <= now:
                gone = items[0]
                length = _pop(times, items, length)
                head[gone] = (head[gone] + 1) & mask
                _fewer(gone, size, order, position, start)
            j = _least(bits[i], size, order, start)
        else:
            j, other = _candidates(rule, bits[i], done, pins, replicas)
            while size[j] > 0 and ring[j, head[j]] <= now:
                head[j] = (head[j] + 1) & mask
                size[j] -= 1
            if other >= 0:
                while size[other] > 0 and ring[other, head[other]] <= now:
                    head[other] = (head[other] + 1) & mask
                    size[other] -= 1
                if size[other] < size[j]:
                    j = other
        many = size[j]
        if many > mask:
            stopped = i
            break
        began = now if many < workers else ring[j, (head[j] + many - workers) & mask]
        leaves = began + work[i]
        k = head[j] + many
        while k > head[j] and ring[j, (k - 1) & mask] > leaves:
            ring[j, k & mask] = ring[j, (k - 1) & mask]
            k -= 1
        ring[j, k & mask] = leaves
        if rule == LEAST:
            length = _push(times, items, length, leaves, j)
            _more(j, size, order, position, start)
        else:
            size[j] += 1
        response[i], chosen[i] = leaves - now, j
        done += 1
    counts[0], counts[1] = done, length
    return stopped


# ------------------------------------------------------------------------------------- replicas on shared cores


@numba.njit(cache=True)
def shared(
    rule: int,
    workers: int,
    cores: float,
    begin: int,
    arrive: Array,
    work: Array,
    bits: Array,
    pins: Array,
    ring: Array,
    head: Array,
    size: Array,
    order: Array,
    position: Array,
    start: Array,
    times: Array,
    items: Array,
    counts: Array,
    clock: Array,
    slots: Array,
    owner: Array,
    free: Array,
    response: Array,
    finished: Array,
    chosen: Array,
) -> tuple[int, int]:
    """Send the requests of a block from ``begin`` on to replicas that share cores.

    Return how many are done, fewer where the room is full, and how many requests ended: these are in ``response``,
    ``finished`` (the number of the request, over all blocks) and ``chosen``, in the order in which they ended.

    Args:
        rule, workers, begin, arrive, work, bits, pins, order, position, start: as :func:`dedicated` takes them.
        cores: c.
        ring: slots of the requests that wait at each replica, shape (replicas, a power of two).
        head, size: where a replica's ring begins, and its requests in all; those beyond its workers wait.
        times, items: heap of the virtual times at which running requests end, with their slots.
        counts: requests so far [0]; running [1]; free slots [2].
        clock: the time [0] and the virtual time [1] reached, s.
        slots: arrival and work in s of the request in each slot, shape (slots, 2).
        owner: its number and replica, shape (slots, 2).
        free: the slots that are free.
    """
    replicas, mask = ring.shape[0], ring.shape[1] - 1
    done, running, spare = counts[0], counts[1], counts[2]
    now, virtual = clock[0], clock[1]
    ended, stopped = 0, len(arrive)
    for i in range(begin, len(arrive)):
        while running > 0:
            pace = 1.0 if running <= cores else cores / running
            when = now + (times[0] - virtual) / pace
            if when > arrive[i]:
                break
            slot, now, virtual = items[0], when, times[0]
            running = _pop(times, items, running)
            j = owner[slot, 1]
            response[ended], finished[ended], chosen[ended] = now - slots[slot, 0], owner[slot, 0], j
            ended += 1
            free[spare] = slot
            spare += 1
            _fewer(j, size, order, position, start)
            if size[j] >= workers:
                following = ring[j, head[j]]
                head[j] = (head[j] + 1) & mask
                running = _push(times, items, running, virtual + slots[following, 1], following)
        if running > 0:
            virtual += (arrive[i] - now) * (1.0 if running <= cores else cores / running)
        now = arrive[i]
        if rule == LEAST:
            j = _least(bits[i], size, order, start)
        else:
            j, other = _candidates(rule, bits[i], done, pins, replicas)
            if other >= 0 and size[other] < size[j]:
                j = other
        if size[j] - workers > mask or spare == 0:
            stopped = i
            break
        spare -= 1
        slot = free[spare]
        slots[slot, 0], slots[slot, 1], owner[slot, 0], owner[slot, 1] = now, work[i], done, j
        if size[j] < workers:
            running = _push(times, items, running, virtual + work[i], slot)
        else:
            ring[j, (head[j] + size[j] - workers) & mask] = slot
        _more(j, size, order, position, start)
        done += 1
    counts[0], counts[1], counts[2] = done, running, spare
    clock[0], clock[1] = now, virtual
    return stopped, ended


# ------------------------------------------------------------------------------------------------- a cache


@numba.njit(cache=True)
def alias(weights: Array) -> tuple[Array, Array]:
    """Return thresholds and aliases by which one of the items is drawn in constant time, in proportion to its weight.

    Source: M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE Trans.
    Software Eng. 17(9), 1991.
    """
    n = len(weights)
    scaled = weights * (n / weights.sum())
    other = np.arange(n)
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    smalls = larges = 0
    for i in range(n):
        if scaled[i] < 1.0:
            small[smalls] = i
            smalls += 1
        else:
            large[larges] = i
            larges += 1
    while smalls > 0 and larges > 0:
        smalls -= 1
        less, more = small[smalls], large[larges - 1]
        other[less] = more
        scaled[more] -= 1.0 - scaled[less]
        if scaled[more] < 1.0:
            larges -= 1
            small[smalls] = more
            smalls += 1
    for i in range(smalls):
        scaled[small[i]] = 1.0
    for i in range(larges):
        scaled[large[i]] = 1.0
    return scaled, other


@numba.njit(cache=True)
def least_recent(
    uniform: Array, threshold: Array, other: Array, before: Array, after: Array, ends: Array, most: int, hit: Array
) -> None:
    """Ask a cache of ``most`` items, which drops the least recently used one, for an item a request.

    Args:
        uniform: in [0, 1), a request each.
        threshold, other: as :func:`alias` gives them; they make an item of a uniform number.
        before, after: neighbours of each cached item, the newer and the older; −1 for none, −2 for not cached.
        ends: the newest [0] and the oldest [1] item, −1 for none, and how many there are [2].
        hit: whether the item was there; written here.
    """
    count = len(threshold)
    for i in range(len(uniform)):
        scaled = uniform[i] * count
        item = int(scaled)
        if scaled - item >= threshold[item]:
            item = other[item]
        hit[i] = before[item] != -2
        if ends[0] == item:
            continue
        if hit[i]:
            newer, older = before[item], after[item]
            after[newer] = older
            if older >= 0:
                before[older] = newer
            else:
                ends[1] = newer
        elif ends[2] == most:
            oldest = ends[1]
            ends[1] = before[oldest]
            before[oldest] = -2
            if ends[1] >= 0:
                after[ends[1]] = -1
            else:
                ends[0] = -1
        else:
            ends[2] += 1
        before[item], after[item] = -1, ends[0]
        if ends[0] >= 0:
            before[ends[0]] = item
        else:
            ends[1] = item
        ends[0] = item


# ---------------------------------------------------------------------------------------------- counting


@numba.njit(cache=True)
def tally(bits: Array, shift: int, first: int, bins: Array) -> None:
    """Count positive numbers by the leading bits of their representation; what lies outside counts at the ends.

    Args:
        bits: float64 numbers, seen as int64, which are in the same order.
        shift: how many bits are left out: 43 leaves the exponent and nine bits, bins of 0.1 to 0.2 %.
        first: the number of the first bin.
        bins: counts; written here.
    """
    last = len(bins) - 1
    for i in range(len(bits)):
        bins[min(max((bits[i] >> shift) - first, 0), last)] += 1
