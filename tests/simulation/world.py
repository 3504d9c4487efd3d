"""Seeded world around core.py: leads, humans, two workers, network, provider, context, faults; and the checker."""
from __future__ import annotations

import heapq
import random
import sys
from collections import defaultdict

from tests.simulation import model_face as C

FIXED = dict(strategy="preempt", freshness="asked", unnamed="give_up", attempting_keep="sender", keep_check="epoch",
             epoch="durable", restart_window="anew", reopen="forget", apology="retry", apology_joins=False,
             pause="ends_turn", refused_final="ends", merge="full", record_after="ok_last", resend=True, correlate="ask",
             sabotage="", fresh_lease="yes", parked="judged_again", record_only="born_ended",
             release="not_started", commit_parts="all", payload="buffer")
SEND_TIMEOUT, FRESH, RECORD_WAIT = 10000, 1000, 500


class Violation(Exception):
    pass


class World:
    def __init__(self, seed, cfg=None, trace=False, **knobs):
        self.r = random.Random(seed)
        self.cfg = {**FIXED, "strategy": "preempt" if self.r.random() < .75 else "enqueue", **(cfg or {})}
        self.k = dict(msgs=(3, 9), span=25000, fault_end=45000, drain=400000, crash_w=.012, crash_b=.008, stop_w=.012, stop_b=.003,
                      cut=.02, forget=.004, gen_fail=.06, gen_hang=.03, provider_bad=.22, merge=.15, pause=.45, ctx_down=.35, poison=.03, silent=0)
        for name in ("crash_w", "crash_b", "stop_w", "stop_b", "cut", "gen_fail", "gen_hang", "provider_bad", "poison", "forget"):
            self.k[name] *= self.r.choice((0, .5, 1, 1, 3))
        self.k["capacity"] = self.r.choice((1, 2, 3))
        self.k["msgs"] = self.r.choice(((3, 9), (3, 9), (1, 4), (10, 20)))
        self.k["slow_net"] = self.r.choice((.0, .03, .03, .2))
        self.k.update(knobs)
        self.trace, self.lines = trace, []
        self.now, self.heap, self.n = 0, [], 0
        self.stats = defaultdict(int)
        self.d = self.cfg.get("durable", C.Durable)()
        self.core, self.buffer_up, self.buffer_stopped_until, self.bq = None, False, 0, []
        self.log_first, self.turn_conv, self.turn_kind = {}, {}, {}
        self.attempting, self.pauses = {}, defaultdict(list)
        self.sends, self.deliveries, self.records, self.rec_payload = [], [], defaultdict(list), {}
        self.acked, self.accepted_gen, self.bad = {}, {}, []
        self.opened_at, self.merged_at = {}, {}
        self.streams, self.next_sid = {}, 1
        self.faults, self.drained = True, None
        self.context_down = []
        self.start_buffer()
        self.workers = [Worker(self, f"w{i}") for i in range(2)]
        for w in self.workers:
            w.start()

    # -- plumbing
    def at(self, delay, fn, *a):
        self.n += 1
        heapq.heappush(self.heap, (self.now + max(0, int(delay)), self.n, fn, a))

    def say(self, *a):
        if self.trace:
            self.lines.append(f"{self.now:7d} " + " ".join(map(str, a)))

    def fault(self, p):
        return self.faults and self.r.random() < p

    def delay(self):
        return self.r.choice((0, 1, 1, 2, 5, 20)) if not self.faults or self.r.random() >= self.k["slow_net"] else self.r.randint(20, 3000)

    # -- buffer process
    def start_buffer(self):
        self.core = C.Core(self.d, self.now, self.cfg, self.core_log)
        self.buffer_up = True
        self.epoch_tick = self.n
        self.say("BUFFER up")
        self.at(0, self.tick, self.core)

    def crash_buffer(self, why):
        self.stats["crash_b"] += 1
        self.say("BUFFER CRASH", why)
        self.buffer_up, self.core, self.bq = False, None, []
        for s in list(self.streams.values()):
            s.cut(self.r.random() < .5, down_too=True)
        self.at(self.r.randint(50, 6000), self.start_buffer)

    def to_buffer(self, name, *args, reply=None):
        """One transaction of the buffer; a crash may fall before it or between commit and answer."""
        if not self.buffer_up:
            return None
        if self.now < self.buffer_stopped_until:
            self.bq.append((name, args, reply))
            return None
        if self.fault(self.k["crash_b"]):
            return self.crash_buffer(f"before {name}")
        out = getattr(self.core, name)(self.now, *args)
        if self.faults and self.r.random() < self.k["crash_b"] * (2 if name in ("commit", "result", "finish", "enqueue") else .3):
            return self.crash_buffer(f"after {name} {args[:3]}")
        self.emit(out)
        if reply:
            reply()
        if self.fault(self.k["stop_b"]):
            self.stats["stop_b"] += 1
            self.buffer_stopped_until = self.now + self.r.randint(500, 20000)
            self.say("BUFFER STOP until", self.buffer_stopped_until)
            self.at(self.buffer_stopped_until - self.now, self.wake_buffer, self.core)
        self.at(self.core.due(self.now) - self.now, self.tick, self.core)

    def wake_buffer(self, core):
        if core is None or core is not self.core:
            return
        self.say("BUFFER WAKES")
        self.emit(core.woke(self.now))
        queue, self.bq = self.bq, []
        for name, args, reply in queue:
            self.to_buffer(name, *args, reply=reply)
        self.at(1, self.tick, self.core)

    def tick(self, core):
        if core is None or core is not self.core or self.now < self.buffer_stopped_until:
            return
        self.emit(core.tick(self.now))
        if getattr(core, "tick_at", -1) <= self.now:
            core.tick_at = min(core.due(self.now), self.now + 5000)
            self.at(core.tick_at - self.now, self.tick, core)

    def emit(self, out):
        for sid, frame in out:
            s = self.streams.get(sid)
            if s:
                s.down(frame)

    def core_log(self, kind, *a):
        self.stats["core_" + kind] += 1
        if self.trace:
            self.say("  core", kind, *a)
        if kind == "open":
            self.turn_conv[a[0]], self.turn_kind[a[0]], self.opened_at[a[0]] = a[1], a[2], self.now
        elif kind == "refused":
            self.stats["refused_" + a[2]] += 1
        elif kind == "first":
            tid, epoch, rev, cur, msgs, text = a
            if rev < cur:
                self.bad.append(f"STALE: turn {tid} committed revision {rev} < {cur}")
            if text and text.startswith("g"):
                seen = tuple(int(x) for x in text.split("|")[2].split(","))
                if set(seen) != set(msgs):
                    self.bad.append(f"STALE: turn {tid} reply made from {seen}, turn has {msgs}")
        elif kind == "attempting":
            conv, tid, i, att, epoch, paused = a
            self.attempting[tid, i, att] = (self.now, epoch)
            self.stats["permitted"] += 1
            if paused:
                self.bad.append(f"PAUSED: turn {tid} part {i} put into ATTEMPTING while paused")
        elif kind == "pause":
            self.pauses[a[0]].append([self.now, None])
        elif kind == "resume":
            for p in self.pauses[a[0]]:
                p[1] = self.now if p[1] is None else p[1]
        elif kind == "join" and a[2] != "ANSWER":
            self.bad.append(f"SWALLOWED: message {a[3]} joined turn {a[0]}, which is an {a[2]}")
        elif kind == "merge":
            self.merged_at[a[1]] = (a[0], self.now)
        elif kind == "closed":
            self.stats["closed_" + a[3]] += 1

    # -- outside: leads, humans
    def lead(self, mid, conv, human, stale, tries=0):
        def ok():
            if mid not in self.acked:
                self.acked[mid] = (conv, self.now)
                self.say("ACKED", mid, conv, "HUMAN" if human else "")
        if mid not in self.acked:
            self.to_buffer("enqueue", mid, conv, human, stale, reply=ok)
            self.at(self.r.randint(300, 3000), self.lead, mid, conv, human, stale, tries + 1)
        elif self.r.random() < .2 and tries < 50:
            self.at(self.r.randint(1, 9000), self.redeliver, mid, conv, human, stale)

    def redeliver(self, mid, conv, human, stale):
        self.to_buffer("enqueue", mid, conv, human, stale)

    def rpc(self, name, *a):
        done = []
        self.to_buffer(name, *a, reply=lambda: done.append(1))
        if not done and self.buffer_up is False:
            self.at(500, self.rpc, name, *a)

    # -- provider
    def provider(self, w, conv, turn, i, attempt, text, epoch):
        """Begins a send at the first byte; returns (outcome, ms until the worker knows)."""
        r = self.r
        bad = self.faults and r.random() < self.k["provider_bad"]
        kind = r.choice(("REFUSED_RETRY", "REFUSED_RETRY", "REFUSED_FINAL", "UNKNOWN", "UNKNOWN", "SLOW", "HANG")) if bad else "SENT"
        rec = dict(start=self.now, w=w.name, conv=conv, turn=turn, i=i, attempt=attempt, epoch=epoch, delivered=None)
        self.sends.append(rec)
        self.stats["send_" + kind] += 1
        took = r.randint(30, 400)
        if kind == "SLOW":
            kind, took = "SENT", r.randint(1000, SEND_TIMEOUT - 1)
        if kind == "HANG":
            kind, took = "UNKNOWN", SEND_TIMEOUT
        if kind == "SENT" or (kind == "UNKNOWN" and r.random() < .5):
            self.at(r.randint(1, took), self.deliver, rec, text, w, w.life)
        return kind, took

    def deliver(self, rec, text, w, life):
        if w.life != life and self.r.random() < .5:
            return                                                   # the bytes died with the process
        rec["delivered"] = self.now
        self.deliveries.append((self.now, rec["conv"], rec["turn"], rec["i"], text))
        self.say("DELIVER turn", rec["turn"], "part", rec["i"], "attempt", rec["attempt"], "by", rec["w"], repr(text[:40]))

    # -- context service: RecordTurn, idempotent by turn id
    def ctx_fails(self):
        return any(a <= self.now < b for a, b in self.context_down)

    def record_turn(self, conv, turn, payload):
        if turn in self.rec_payload:
            return
        self.rec_payload[turn] = payload
        self.records[conv].append(turn)
        self.say("RECORDED", turn, payload)

    # -- run
    def run(self):
        r, k = self.r, self.k
        convs = ["a", "b"] if r.random() < .6 else ["a"]
        mid = 0
        for conv in convs:
            t = r.randint(0, 2000)
            for _ in range(r.randint(*k["msgs"])):
                mid += 1
                self.at(t, self.lead, mid, conv, r.random() < .04, r.random() < .04)
                t += r.choice((r.randint(50, 900), r.randint(50, 900), r.randint(300, 6000), r.randint(5000, 20000)))
                if r.random() < .15:
                    self.at(max(0, t - 300), self.rpc, "presence", conv)
            if r.random() < k["pause"]:
                p = r.randint(100, k["span"])
                self.at(p, self.rpc, "pause", conv)
                if r.random() < .8:
                    self.at(p + r.randint(200, 15000), self.rpc, "resume", conv)
        if len(convs) == 2 and r.random() < k["merge"]:
            self.at(r.randint(500, k["span"]), self.rpc, "merge", "a", "b")
        if r.random() < k["ctx_down"]:
            a = r.randint(0, k["span"])
            self.context_down.append((a, a + r.randint(500, 25000)))
        self.poison = {m for m in range(1, mid + 1) if r.random() < k["poison"]}
        self.convs, self.total = convs, mid
        self.at(k["fault_end"], self.heal)
        limit, steps = k["fault_end"] + k["drain"], 0
        while self.heap:
            t, _, fn, a = heapq.heappop(self.heap)
            if t > limit:
                break
            self.now = t
            fn(*a)
            steps += 1
            if steps > 60000:
                self.bad.append("LIVELOCK: 60000 steps")
                break
            if not self.faults and self.drained is None and all(not l.turn and not l.pending and not l.records for l in self.d.lanes.values()) and len(self.acked) == self.total:
                self.drained = self.now - k["fault_end"]
            if self.bad and len(self.bad) > 3:
                break
            if not self.faults and t > k["fault_end"] + 2000 and steps % 50 == 0 and self.quiet():
                break
        self.stats["steps"] += steps
        self.heal_time = self.drained if self.drained is not None else 10**6
        self.check()
        return self.bad

    def heal(self):
        self.faults = False
        self.poison = set()
        self.context_down = []
        self.say("=== HEAL ===")

    def quiet(self):
        return (len(self.acked) == self.total and all(not l.turn and not l.pending and not l.records for l in self.d.lanes.values())
                and not any(w.held for w in self.workers))

    # -- checker
    def person(self, conv):
        return "a" if conv in self.merged_at else conv

    def check(self):
        bad, d = self.bad, self.d
        for lane in d.lanes.values():
            if lane.turn or lane.pending or lane.records:
                bad.append(f"STUCK: lane {lane.conv} turn={lane.turn and (lane.turn.id, lane.turn.kind, [(p.state) for p in lane.turn.parts], lane.turn.last)} "
                           f"pending={len(lane.pending)} unrecorded={[t.id for t in lane.records]}")
        if len(self.acked) < self.total:
            bad.append(f"STUCK: {self.total - len(self.acked)} never acknowledged")
        turns = {t.id: t for t in d.ended}
        where = defaultdict(list)
        for t in d.ended:
            for m in t.msgs:
                where[m.id].append(t.id)
        for lane in d.lanes.values():
            for m in lane.pending + (lane.turn.msgs if lane.turn else []):
                where[m.id].append("open")
        for m in self.acked:
            if len(where[m]) != 1:
                bad.append(f"LOST or doubled: message {m} in turns {where[m]}")
        # answered
        sent = defaultdict(list)
        for t, conv, turn, i, text in self.deliveries:
            sent[turn].append((t, i, text))
        for t in d.ended:
            parts = [p for p in t.parts]
            if t.kind == "ANSWER" and t.why == "finished":
                if not parts and not self.k["silent"]:
                    bad.append(f"LOST: turn {t.id} finished without an answer")
                if not any(p.state == C.REFUSED for p in parts) and not t.truncated:
                    self.whole(t)
            if t.kind == "APOLOGY" and t.why == "finished" and not parts:
                bad.append(f"LOST: apology {t.id} without part")
            if t.why == "dead":
                bad.append(f"LOST: dead letter {t.id} ended without the honest sentence")
            for m in t.msgs:
                if t.kind == "ANSWER" and m.record_only:
                    bad.append(f"PAUSED: message {m.id} of a pause answered in turn {t.id}")
                if t.kind == "RECORD" and not m.record_only and not self.was_paused(t.conv, self.opened_at[t.id]):
                    bad.append(f"LOST: message {m.id} only recorded, lane wasn't paused")
                if t.why == "paused" and not self.pauses[t.conv]:
                    bad.append(f"LOST: turn {t.id} paused without pause")
        # at most once, order, overlap
        seen = defaultdict(int)
        for t, conv, turn, i, text in self.deliveries:
            seen[turn, i] += 1
        texts = [x[4] for x in self.deliveries if x[4] != "honest"]
        for x in set(texts):
            if texts.count(x) > 1:
                bad.append(f"TWICE: text {x!r} delivered {texts.count(x)} times")
        for t in d.ended:
            if t.kind != "RECORD" and t.why == "finished":
                self.stats["turns_answered"] += 1
                if not sent[t.id]:
                    self.stats["turns_silent_unknown" if any(p.state == C.UNKNOWN for p in t.parts) else "turns_silent_refused" if any(p.state == C.REFUSED for p in t.parts) else "turns_silent_other"] += 1
                if t.truncated:
                    self.stats["turns_truncated"] += 1
                if t.kind == "APOLOGY":
                    self.stats["turns_apology"] += 1
        for key, n in seen.items():
            if n > 1:
                bad.append(f"TWICE: part {key} delivered {n} times")
        last = {}
        for t, conv, turn, i, text in self.deliveries:
            p = conv
            if p in last and (turn, i) <= last[p]:
                bad.append(f"ORDER: conv {p} delivered {(turn, i)} after {last[p]}")
            last[p] = max(last.get(p, (0, -1)), (turn, i))
        by = defaultdict(list)
        for s in self.sends:
            by[s["conv"]].append(s)
            a = self.attempting.get((s["turn"], s["i"], s["attempt"]))
            if not a:
                bad.append(f"EFFECT: send of {s['turn'], s['i'], s['attempt']} never permitted")
                continue
            when, epoch = a
            if not 0 <= s["start"] - when <= C.WINDOW - SEND_TIMEOUT:
                bad.append(f"WINDOW: send of {s['turn'], s['i']} began {s['start'] - when} ms after ATTEMPTING")
            for p0, p1 in self.pauses[s["conv"]]:
                if p0 < when < (p1 if p1 is not None else 10**9):
                    bad.append(f"PAUSED: {s['turn'], s['i']} permitted at {when} in pause {p0}-{p1}")
        for conv, ss in by.items():
            keys = set()
            for s in ss:
                if (s["turn"], s["i"], s["attempt"]) in keys:
                    bad.append(f"TWICE: attempt {s['turn'], s['i'], s['attempt']} begun twice")
                keys.add((s["turn"], s["i"], s["attempt"]))
            for x, y in zip(ss, ss[1:]):
                if x["delivered"] and x["delivered"] > y["start"]:
                    bad.append(f"OVERLAP: conv {conv} {x['turn'], x['i']} by {x['w']} still in flight when {y['turn'], y['i']} by {y['w']} began")
        for t in d.ended:
            refused = [i for i, p in enumerate(t.parts) if p.state == C.REFUSED]
            if refused and any(i > refused[0] for _, i, _ in sent[t.id]):
                bad.append(f"GAP: turn {t.id} went on after its part {refused[0]} was refused for good")
        for conv, (older, when) in self.merged_at.items():
            for s in self.sends:
                if s["conv"] == conv:
                    for y in self.sends:
                        if y["conv"] == older and self.opened_at[y["turn"]] > when and y["start"] < (s["delivered"] or 0) and s["turn"] < y["turn"]:
                            bad.append(f"MERGE: older lane's turn {y['turn']} began while younger's {s['turn']} was sending")
        # epochs with effects never go back
        eps = defaultdict(int)
        for (turn, i, att), (when, epoch) in sorted(self.attempting.items(), key=lambda x: (x[1][0], x[0][2])):
            if epoch < eps[turn]:
                bad.append(f"EPOCH: turn {turn} effect of epoch {epoch} after {eps[turn]}")
            eps[turn] = epoch
        # records: once, in order, true
        for conv, ids in self.records.items():
            ended = [t.id for t in d.ended if t.conv == conv]
            if ids != [t for t in ended if t in set(ids)]:
                bad.append(f"RECORD ORDER: conv {conv} recorded {ids}, ended {ended}")
            if set(ids) - set(turns):
                live = set(ids) - set(turns)
                if not any(l.turn and l.turn.id in live for l in d.lanes.values()):
                    bad.append(f"RECORD: unknown turns {live}")
        for t in d.ended:
            p = self.rec_payload.get(t.id)
            pending_rec = any(t in l.records for l in d.lanes.values())
            if p is None:
                if not pending_rec:
                    bad.append(f"RECORD: turn {t.id} ({t.why}) never recorded")
                continue
            msgs, parts, effects = p
            if tuple(m.id for m in t.msgs) != msgs:
                bad.append(f"RECORD: turn {t.id} recorded messages {msgs}, has {[m.id for m in t.msgs]}")
            for _, i, text in sent[t.id]:
                if text not in parts:
                    bad.append(f"RECORD: turn {t.id} delivered {text!r} which the history lacks ({parts})")
            gens = {x.text.split("|")[0] for x in t.parts} - {"honest"}
            if t.kind == "ANSWER" and t.why == "finished" and not t.parts and effects != ("silence",):
                bad.append(f"EFFECTS: turn {t.id} chose to say nothing, and its effects are {effects}")
            if parts and set(effects) != gens and not (set(effects) > gens and "honest" in t.parts[-1].text):
                bad.append(f"EFFECTS: turn {t.id} recorded effects of {effects}, parts of {gens}")
        for conv in self.convs:
            for origin in self.convs:
              seqs = [m.seq for t in d.ended if t.conv == conv for m in t.msgs if m.conv == origin]
              if seqs != sorted(seqs):
                bad.append(f"ORDER: messages of {conv} taken as {seqs}")

    def waits(self):
        """From acceptance of a turn's oldest message to its first permission to send."""
        first = {}
        for (turn, i, att), (when, _) in self.attempting.items():
            first[turn] = min(when, first.get(turn, 10**9))
        return [(first[t.id] - t.msgs[0].at, t.id) for t in self.d.ended if t.id in first]

    def was_paused(self, conv, when):
        return any(a <= when for a, b in self.pauses[conv] if b is None or when <= b)

    def whole(self, t):
        """The parts are one generation (and its continuations) from 0 to its end, with nothing left out."""
        if not t.parts:
            return
        gen = t.parts[-1].text.split("|")
        if gen[0] == "honest":
            return
        n, total = (int(x) for x in gen[3].split("/"))
        if n != total - 1:
            self.bad.append(f"TRUNCATED: turn {t.id} ends with part {n} of {total}, not marked")
        for j, p in enumerate(t.parts):
            g = p.text.split("|")
            if g[0] != "honest" and int(g[3].split("/")[0]) != j:
                self.bad.append(f"MIXED: turn {t.id} part {j} is {p.text}")


class Stream:
    def __init__(self, world, worker, sid):
        self.world, self.worker, self.sid = world, worker, sid
        self.open, self.lost_up, self.lost_down, self.up_at, self.down_at = True, False, False, 0, 0
        self.buffer = world.core                                     # a connection dies with its process

    def up(self, name, *args):
        w = self.world
        self.up_at = max(self.up_at, w.now + w.delay())
        w.at(self.up_at - w.now, self._up, name, args)

    def _up(self, name, args):
        if not self.lost_up and self.world.core is self.buffer:
            self.world.to_buffer(name, *args)

    def down(self, frame):
        w = self.world
        self.down_at = max(self.down_at, w.now + w.delay())
        w.at(self.down_at - w.now, self._down, frame)

    def _down(self, frame):
        if not self.lost_down:
            self.worker.event(self.worker.life, self.worker.frame, self.sid, frame)

    def cut(self, keep_up, down_too):
        """The connection breaks: what was under way in a direction may or may not still arrive."""
        if not self.open:
            return
        w = self.world
        self.open, self.lost_up = False, not keep_up
        self.lost_down = down_too
        w.streams.pop(self.sid, None)
        w.at(w.r.randint(0, 2500), w.to_buffer, "stream_lost", self.sid)
        w.at(w.r.randint(0, 300), self.worker.event, self.worker.life, self.worker.lost, self.sid)


class Worker:
    """One ingress turn runner."""

    def __init__(self, world, name):
        self.world, self.base, self.life, self.up = world, name, 0, False
        self.asleep, self.deferred = False, []
        self.held, self.stream, self.gen_no = {}, None, 0

    def start(self):
        self.life += 1
        self.name = f"{self.base}.{self.life}"                       # a new id for every process start
        self.begun = {}
        self.up, self.held, self.deferred, self.asleep = True, {}, [], False
        self.connect()
        self.event(self.life, self.beat)

    def later(self, delay, fn, *a):
        self.world.at(delay, self.event, self.life, fn, *a)

    def event(self, life, fn, *a):
        w = self.world
        if life != self.life or not self.up:
            return None
        if self.asleep:
            self.deferred.append((fn, a))
            return None
        fn(*a)
        if w.faults and w.r.random() < w.k["crash_w"] * (1 if fn != self.beat else .1):
            return self.crash(fn.__name__)
        if w.faults and w.r.random() < w.k["stop_w"] * (1 if fn != self.beat else .1):
            self.stop(fn.__name__)
        elif w.faults and w.r.random() < w.k["cut"] * (1 if fn != self.beat else .2) and self.stream:
            w.stats["cut"] += 1
            w.say(self.name, "STREAM CUT after", fn.__name__)
            s, self.stream = self.stream, self.stream
            s.cut(w.r.random() < .5, w.r.random() < .5)

    def crash(self, why):
        w = self.world
        w.stats["crash_w"] += 1
        w.say(self.name, "CRASH after", why)
        self.up, self.life = False, self.life + 1
        if self.stream:
            self.stream.cut(w.r.random() < .7, True)
        self.stream = None
        w.at(w.r.randint(200, 8000), self.start)

    def stop(self, why):
        w = self.world
        w.stats["stop_w"] += 1
        self.asleep = True
        self.stopped_until = w.now + w.r.choice((w.r.randint(100, 4000), w.r.randint(4000, 25000)))
        w.say(self.name, "STOP after", why, "until", self.stopped_until)
        w.at(self.stopped_until - w.now, self.wake, self.life)

    def wake(self, life):
        if life != self.life:
            return
        self.world.say(self.name, "WAKES")
        self.asleep = False
        queue, self.deferred = self.deferred, []
        for n, (fn, a) in enumerate(queue):
            self.event(life, fn, *a)
            if life != self.life:
                return
            if self.asleep:
                self.deferred += queue[n + 1:]
                return

    def connect(self):
        w = self.world
        if not w.buffer_up:
            return self.later(w.r.randint(50, 600), self.connect)
        sid, w.next_sid = w.next_sid, w.next_sid + 1
        self.stream = w.streams[sid] = Stream(w, self, sid)
        self.stream.up("hello", sid, self.name, w.k["capacity"], [(h.turn, h.epoch) for h in self.held.values()])
        w.say(self.name, "HELLO sid", sid, [(h.turn, h.epoch) for h in self.held.values()])

    def lost(self, sid):
        if self.stream and self.stream.sid == sid:
            self.stream = None
            self.later(self.world.r.choice((10, 100, self.world.r.randint(100, 6000))), self.connect)

    def beat(self):
        if self.stream:
            self.stream.up("heartbeat", self.stream.sid)
        self.later(1000, self.beat)

    def send(self, name, *args):
        if self.stream and self.stream.open:
            self.stream.up(name, self.stream.sid, *args)

    # -- frames
    def frame(self, sid, f):
        if not self.stream or sid != self.stream.sid:
            return None                                                   # of an old stream
        kind = f["f"]
        self.world.say(self.name, "<-", {k: v for k, v in f.items() if k not in ("msgs",)})
        if kind == "Assign":
            return self.assigned(f)
        if kind == "Record":
            return self.record_list(f["conv"], list(f["turns"]))
        h = self.held.get(f["turn"])
        if not h:
            return None
        if kind == "Revoke":
            if f["epoch"] in (-1, h.epoch):
                self.drop(h)
        elif kind == "Joined":
            self.restart(h, f)
        elif kind == "Committed" and f["epoch"] == h.epoch:
            self.answered(h, f)

    def drop(self, h):
        h.gen += 1
        h.dead = True
        self.held.pop(h.turn, None)

    def assigned(self, f):
        w = self.world
        h = self.held.get(f["turn"])
        if h and f["keep"] and self.world.cfg["resend"]:
            return self.reconcile(h, f)
        if h:
            self.drop(h)
        h = self.held[f["turn"]] = Held(f)
        if any(s == C.ATTEMPTING for _, s, _ in f["parts"]):
            h.parts = [t for t, _, _ in h.parts_view]
            return self.reconcile(h, f)
        if w.fault(w.k["forget"]):
            w.say(self.name, "FORGETS", h.turn)
            w.stats["forgot"] += 1
            self.held.pop(h.turn)
            return None
        if w.poison & {m.id for m in f["msgs"]} and w.r.random() < .9 and w.faults:
            w.stats["poisoned"] += 1
            return self.crash("poison")
        if h.parts_view and any(s != C.STORED for _, s, _ in h.parts_view):
            h.parts = [t for t, _, _ in h.parts_view]
            if h.last:
                return self.ask(h)                                   # go on with what is stored
            return self.generate(h)                                  # continue once, after `said`
        h.parts = []
        if h.last:
            return self.ask(h)                                       # silence was chosen
        if h.kind == "RECORD":
            return self.record_own(h)
        h.last = False
        self.generate(h)

    def reconcile(self, h, f):
        """Kept over a lost stream: the buffer's view is the truth; report what it doesn't know yet."""
        h.epoch, h.remaining = f["epoch"], f["remaining"]
        h.asks.clear()
        view = f["parts"]
        h.closed.update({i: s.upper() for i, (_, s, _) in enumerate(view) if s in C.CLOSED})
        flying = next(((i, a) for i, (_, s, a) in enumerate(view) if s == C.ATTEMPTING), None)
        if f["revision"] > h.revision:
            return self.restart(h, f)
        if flying:
            if self.world.cfg["correlate"] == "any":
                known = h.outcome[2] if h.outcome and h.outcome[:2] == flying else None if h.sending == flying else "NOT_STARTED"
            else:
                known = self.begun.get((h.turn, flying[1]), "NOT_STARTED")   # of this process, for as long as it lives
            if known:
                h.outcome = (*flying, known)
                return self.report(h)
            return None                                              # still sending
        if h.finishing:
            return self.finish(h)
        if h.parts and (h.started or view or h.gen_done):
            self.ask(h)
        return None

    def restart(self, h, f):
        if f["revision"] > h.revision and not h.sending:
            h.revision, h.msgs = f["revision"], f["msgs"]
            h.parts, h.last, h.truncated, h.handoff, h.started = [], False, False, False, False
            self.world.stats["restart"] += 1
            self.generate(h)

    # -- generation
    def generate(self, h):
        w = self.world
        h.gen += 1
        h.gen_done = False
        h.before = h.effects if h.parts else ()                      # of a reply that is continued
        self.gen_no += 1
        said = len(h.parts)
        if h.kind == "APOLOGY":
            h.parts, h.last, h.handoff = ["honest"], True, False
            return self.later(1, self.ask_if, h, h.gen)
        if w.fault(w.k["gen_fail"]):
            return self.later(w.r.randint(10, 800), self.gen_failed, h, h.gen)
        if w.k["silent"] and not said and w.r.random() < w.k["silent"]:
            return self.later(w.r.randint(1, 900), self.nothing_to_say, h, h.gen)
        hang = w.fault(w.k["gen_hang"])
        total = max(said + 1, w.r.choice((1, 2, 2, 3)))
        name = f"g{self.name}.{self.gen_no}|t{h.turn}|{','.join(str(m.id) for m in h.msgs)}"
        t = w.r.randint(100, 2500)
        broken = w.fault(w.k["gen_fail"]) and total - said > 1
        for i in range(said, total):
            if broken and i == total - 1:
                self.later(t, self.gen_failed, h, h.gen)
            elif not hang or i < total - 1:
                self.later(t, self.piece, h, h.gen, f"{name}|{i}/{total}", i == total - 1)
            t += w.r.randint(5, 900)
        if hang and not broken:
            self.later(max(h.remaining - 1000, t), self.honest, h, h.gen)
        return None

    def piece(self, h, gen, text, last):
        if h.gen != gen or h.dead:
            return
        h.parts.append(text)
        h.effects = h.before + (text.split("|")[0],)
        if last:
            h.last = h.gen_done = True
            h.handoff = self.world.r.random() < .03 and self.world.faults
        h.started = True
        self.ask(h)
        if last and self.world.cfg["record_after"] == "at_once":
            self.maybe_finish(h)

    def nothing_to_say(self, h, gen):
        if h.gen == gen and not h.dead:
            h.last = h.gen_done = True
            h.effects = ("silence",)
            self.world.stats["silences"] += 1
            self.ask(h)

    def gen_failed(self, h, gen):
        if h.gen != gen or h.dead:
            return None
        if h.parts and h.committed:
            h.last = h.truncated = True                             # ends with what is there
            self.ask(h)
            return self.maybe_finish(h) if self.world.cfg["record_after"] == "at_once" else None
        self.held.pop(h.turn, None)
        h.dead = True
        self.send("release", h.turn, h.epoch, True)

    def honest(self, h, gen):
        if h.gen != gen or h.dead or h.last:
            return
        h.gen += 1
        h.parts, h.last, h.effects = h.parts + ["honest"], True, h.effects
        self.ask(h)

    # -- asking, sending, reporting
    def ask_if(self, h, gen):
        if h.gen == gen and not h.dead:
            self.ask(h)

    def ask(self, h):
        h.ask += 1
        h.asks[h.ask] = self.world.now
        self.send("commit", h.turn, h.epoch, h.ask, h.revision, list(h.parts[h.acked if self.world.cfg["commit_parts"] == "new" else 0:]), h.last, h.effects, h.handoff, h.truncated)

    def report(self, h):
        h.ask += 1
        h.asks[h.ask] = self.world.now
        self.send("result", h.turn, h.epoch, h.ask, *h.outcome)

    def answered(self, h, f):
        asked = h.asks.pop(f["ask"], None)
        if f["refused"]:
            if f["refused"] == "SUPERSEDED":
                return self.restart(h, f)
            if f["refused"] == "PAUSED" and self.world.cfg["pause"] != "ends_turn":
                h.gen += 1
                h.last = h.finishing = True
                return self.record_own(h)
            return self.drop(h)
        if self.world.cfg["correlate"] == "any":                     # no number in the answer: taken for the Result's
            h.outcome = None
        h.committed = h.committed or f["have"] > 0
        h.acked = f["have"]
        if f["go"]:
            return self.go(h, f, asked)
        if f["complete"]:
            if h.finishing and h.recorded is not None:
                self.held.pop(h.turn, None)
                h.dead = True
            elif not h.finishing:
                h.finishing = True
                self.record_own(h, f["record"] if self.world.cfg["payload"] == "buffer" else None)
            return None
        if f["have"] == 0 and h.parts and not h.asks and h.kind and not f["complete"]:
            self.ask(h)                                              # opened again: ask anew, the buffer parks it
        elif not h.asks and f["have"] and not h.sending:
            self.ask(h) if self.stored_unsent(h, f) else None
        return None

    def stored_unsent(self, h, f):
        return len(h.parts) > f["have"] or (h.last and not f["complete"])

    def go(self, h, f, asked):
        w = self.world
        i, attempt, text = f["go"]
        base = asked if w.cfg["freshness"] == "asked" else w.now - f["parked"]
        h.committed = True
        if base is None or w.now - base - f["parked"] > FRESH:
            w.stats["not_started"] += 1
            h.outcome = (i, attempt, "NOT_STARTED")
            return self.report(h)
        h.sending = (i, attempt)
        self.begun[h.turn, attempt] = None
        kind, took = w.provider(self, h.conv, h.turn, i, attempt, text, h.epoch)
        w.say(self.name, "SEND turn", h.turn, "part", i, "attempt", attempt, "epoch", h.epoch, "->", kind, "after", took)
        self.later(took, self.sent, h, i, attempt, kind)
        return None

    def sent(self, h, i, attempt, kind):
        if h.sending == (i, attempt):
            h.sending = None
        h.outcome = (i, attempt, kind)
        self.begun[h.turn, attempt] = kind
        h = self.held.get(h.turn, h)                                 # whoever holds the turn now tells it
        h.outcome = (i, attempt, kind)
        if kind in ("SENT", "UNKNOWN"):
            h.closed[i] = kind
        if self.world.cfg["record_after"] == "at_once":
            self.maybe_finish(h)
        self.report(h)                                               # even when revoked: evidence

    # -- recording
    def maybe_finish(self, h):
        """The careless reading: record as soon as this worker has sent all that it has."""
        if h.last and not h.finishing and len(h.closed) == len(h.parts):
            h.finishing = True
            self.record_own(h)

    def call_record(self, rec, then):
        """RecordTurn with a 500 ms wait; a call that timed out may still be applied later."""
        w = self.world
        conv, tid, *payload = rec
        took = w.r.choice((5, 20, 60)) if w.r.random() < .93 or not w.faults else w.r.randint(300, 3000)
        ok = not w.ctx_fails()
        if ok:
            w.at(took, w.record_turn, conv, tid, tuple(payload))
        if ok and took < RECORD_WAIT:
            self.later(took, then, True)
        else:
            self.later(RECORD_WAIT, then, False)

    def record_own(self, h, own=None):
        if h.kind == "APOLOGY" or h.more:                            # it never saw the messages, or not all older records
            h.recorded = False
            return self.finish(h)
        said = tuple(t for i, t in enumerate(h.parts) if h.closed.get(i) in ("SENT", "UNKNOWN"))
        own = own or (h.conv, h.turn, tuple(m.id for m in h.msgs), said, h.effects if said else ())
        todo = [*h.unrecorded, own]

        def step(ok):
            if h.dead and self.world.cfg["record_after"] == "ok_last":
                return None
            if ok and todo:
                todo.pop(0)
            h.finishing = h.finishing or h.kind == "RECORD"
            if not ok and h.kind == "RECORD":
                return self.later(2000, lambda: self.call_record(todo[0], step))
            if not ok or not todo:
                h.recorded = bool(ok)
                return self.finish(h)
            self.call_record(todo[0], step)
        self.call_record(todo[0], step)

    def finish(self, h):
        if h.recorded is None:
            return
        h.ask += 1
        h.asks[h.ask] = self.world.now
        self.send("finish", h.turn, h.epoch, h.ask, h.recorded)

    def record_list(self, conv, todo):
        def step(ok):
            if ok:
                done = todo.pop(0)
                self.send_recorded(conv, done[1])
            if ok and todo:
                self.call_record(todo[0], step)
        self.call_record(todo[0], step)

    def send_recorded(self, conv, upto):
        if self.stream and self.stream.open:
            self.stream.up("recorded", conv, upto)


class Held:
    def __init__(self, f):
        self.turn, self.conv, self.epoch, self.revision, self.kind = f["turn"], f["conv"], f["epoch"], f["revision"], f["kind"]
        self.msgs, self.parts_view, self.last, self.effects = f["msgs"], f["parts"], f["last"], f["effects"]
        self.handoff, self.truncated, self.acked = f["handoff"], f["truncated"], len(f["parts"])
        self.unrecorded, self.more, self.remaining = f["unrecorded"], f["more"], f["remaining"]
        self.parts, self.gen, self.gen_done, self.started, self.dead = [], 0, False, False, False
        self.sending = self.outcome = self.recorded = None
        self.committed, self.finishing = bool(f["parts"]), False
        self.closed = {i: s.upper() for i, (_, s, _) in enumerate(f["parts"]) if s in C.CLOSED}
        self.ask, self.asks = 0, {}


if __name__ == "__main__":
    seed = int(sys.argv[1])
    cfg = dict(x.split("=") for x in sys.argv[2:])
    w = World(seed, cfg, trace=True)
    bad = w.run()
    print("\n".join(w.lines))
    print("\n".join(bad) or "OK", dict(w.stats), "heal", w.heal_time)
