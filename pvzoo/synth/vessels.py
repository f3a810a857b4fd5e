"""Trees of veins, grown towards tissue that has none yet.

After constrained constructive optimisation (Schreiner and Buxbaum, 1993): one terminal at a time is joined to the
segment that then costs the least blood volume, at the flow-weighted mean of the three ends (the first step of Kamiya
and Togawa's optimal bifurcation, 1972); radii follow Murray's law, r^3 = sum of the children's r^3.
"""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState

from .strokes import Array, wander

NEAR = 6  # the segments that are tried for a new terminal
CAPILLARY = 0.0042  # radius of a vein with one terminal, in shares of the palm


def grow(random: RandomState, mirrored: bool) -> list[tuple[Array, Array, float]]:
    """Grows the veins of one palm.

    Returns:
        (points (n, 2), radii (n,), contrast) of each vessel, in shares of the palm.
    """
    roots = [(random.uniform(0.1, 0.4), 1.15), (random.uniform(0.55, 0.95), 1.15)]
    first = [
        (random.uniform(0.1, 0.5), random.uniform(0.1, 0.6)),
        (random.uniform(0.5, 0.95), random.uniform(0.1, 0.6)),
    ]
    if random.uniform() < 0.7:
        roots.append((-0.15, random.uniform(0.3, 0.9)))  # from the thumb's side
        first.append((random.uniform(0.15, 0.5), random.uniform(0.2, 0.8)))
    if random.uniform() < 0.6:
        roots.append((random.uniform(0.2, 0.9), -0.15))  # the arch below the fingers
        first.append((random.uniform(0.2, 0.8), random.uniform(0.15, 0.5)))
    nodes = np.zeros((256, 2))
    parent = np.full(256, -1)
    leaves = np.zeros(256)
    count = 0
    for root, end in zip(roots, first, strict=True):
        nodes[count], nodes[count + 1] = root, end
        parent[count + 1] = count
        leaves[count : count + 2] = 1
        count += 2
    for _ in range(random.randint(16, 30)):
        # Of a few places, the one farthest from all veins: tissue that lacks them.
        places = random.uniform(-0.1, 1.1, (5, 2))
        child = np.flatnonzero(parent[:count] >= 0)
        a, b = nodes[parent[child]], nodes[child]
        along = ((places[:, None] - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1)
        foot = a + np.clip(along, 0.1, 0.9)[..., None] * (b - a)
        distance = np.hypot(*np.moveaxis(places[:, None] - foot, -1, 0))
        chosen = distance.min(1).argmax()
        end = places[chosen]
        tried = np.argsort(distance[chosen], kind="stable")[:NEAR]
        a, b, flow = a[tried], b[tried], leaves[child[tried]][:, None]
        # The branching point lies between the foot and the flow-weighted mean, which alone would shrink trunks.
        fork = 0.75 * foot[chosen][tried] + 0.25 * ((flow + 1) * a + flow * b + end) / (2 * flow + 2)
        old = flow[:, 0] ** (2 / 3) * np.hypot(*(b - a).T)
        new = (flow[:, 0] + 1) ** (2 / 3) * np.hypot(*(fork - a).T) + flow[:, 0] ** (2 / 3) * np.hypot(*(b - fork).T)
        best = (new - old + np.hypot(*(end - fork).T)).argmin()
        joined = child[tried[best]]
        nodes[count], nodes[count + 1] = fork[best], end
        parent[count], leaves[count] = parent[joined], leaves[joined]
        parent[joined], parent[count + 1], leaves[count + 1] = count, count, 1
        above = count
        while above >= 0:
            leaves[above] += 1
            above = parent[above]
        count += 2
    if mirrored:
        nodes[:, 0] = 1 - nodes[:, 0]
    return _vessels(random, nodes[:count], parent[:count], leaves[:count])


def _vessels(random: RandomState, nodes: Array, parent: Array, leaves: Array) -> list[tuple[Array, Array, float]]:
    """From a tree to smooth vessels: each follows the child with most flow, and begins on the vessel it leaves."""
    children: list[list[int]] = [[] for _ in nodes]
    for node in range(len(nodes)):
        if parent[node] >= 0:
            children[parent[node]].append(node)
    vessels = []
    starts = [(node, next_) for node in range(len(nodes)) if parent[node] < 0 for next_ in children[node]]
    while starts:
        origin, node = starts.pop()
        chain = [origin, node]
        while children[node]:
            ahead, *others = sorted(children[node], key=lambda child: -leaves[child])
            starts += [(node, other) for other in others]
            node = ahead
            chain.append(node)
        vessels.append(_smooth(random, nodes[chain], leaves[chain[1:]]))
    return vessels


def _smooth(random: RandomState, corners: Array, flow: Array) -> tuple[Array, Array, float]:
    """Rounds a chain of nodes (n, 2) off, with a winding course and a width that tapers from node to node."""
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    count = max(8, int(steps[-1] * 48))
    at = np.linspace(0, steps[-1], count)
    line = np.stack([np.interp(at, steps, corners[:, axis]) for axis in (0, 1)], 1)
    window = 7 if count >= 14 else 3
    kernel = np.hanning(window + 2)[1:-1] / np.hanning(window + 2)[1:-1].sum()
    for _ in range(2):
        padded = np.pad(line, ((window // 2, window // 2), (0, 0)), mode="reflect", reflect_type="odd")
        line = np.stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)], 1)
    # Winding, which fades out at the ends so that a branch stays on its trunk.
    hold = np.minimum(1, np.minimum(at, steps[-1] - at) / 0.06)[:, None]
    knots = max(2, int(steps[-1] * 9))
    line = line + 0.011 * hold * np.stack([wander(random, count, knots), wander(random, count, knots)], 1)
    radius = CAPILLARY * np.interp(at, (steps[1:] + steps[:-1]) / 2, flow) ** (1 / 3)
    taper = np.minimum(1, (steps[-1] - at) / 0.12 + 0.45)
    radius = radius * taper * (1 + 0.12 * wander(random, count, knots))
    return line, np.maximum(radius, 0.0025), float(random.uniform(0.6, 1.0))
