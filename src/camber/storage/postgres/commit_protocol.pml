/*
 * How several servers commit to one PostgreSQL and answer from it: the protocol as a model, which Spin searches exhaustively.
 *
 * docs/explanation/commit-protocol.md says it in words; tests/model/test_commit_protocol.py searches it within several bounds, and with
 * each of the mistakes below planted, which must be found. It lies beside the driver so that whoever changes a step there meets its twin;
 * nothing reads it when Camber runs.
 *
 * A step is one `::` of a loop: no other process sees the middle of it. There are two keys, A and B; the value of a key is the number of
 * the mutation that wrote it last.
 */

#ifndef MUTATIONS_0
#define MUTATIONS_0 2 /* of the first server */
#endif
#ifndef MUTATIONS_1
#define MUTATIONS_1 1 /* of the second */
#endif
#ifndef KINDS
#define KINDS 3       /* of mutations: see choose() */
#endif
#ifndef FAULTS
#define FAULTS 1      /* how often, in all, a server dies, a connection is lost or the database refuses */
#endif
#ifndef FORGETS
#define FORGETS 0     /* how often the old rows of the log are dropped */
#endif
#ifndef QUERIES_0
#define QUERIES_0 0   /* asked of the first server */
#endif
#ifndef QUERIES_1
#define QUERIES_1 0   /* asked of the second; of a server that is asked nothing, results and looks are left out */
#endif
#ifndef READERS
#define READERS 0     /* 1: somebody takes two snapshots */
#endif

#define MUTATIONS (MUTATIONS_0 + MUTATIONS_1)
#define AHEAD 3       /* what a clock that is ahead says; one that is behind says 0 */

#define A 1
#define B 2
#define kind(read, written) ((read) + 4 * (written))
#define reads(it) ((it) & 3)
#define writes(it) ((it) >> 2)

#define bit_of(mutation) (1 << ((mutation) - 1))
#define later(x, y) ((x) > (y) -> (x) : (y))

/* ---- The database: the log with the state after each commit, the commit lock, and sessions whose client is gone. */

typedef Row {
    byte timestamp;
    byte members;     /* bits of the mutations; as no mutation may be in two rows, this is the token as well */
    byte touched;
    byte a, b
};
Row log[MUTATIONS + 1]; /* the first row is the database before the first commit */
byte newest;
byte oldest;          /* rows before this one have been dropped */

#define FREE 0
#define OURS (me + 1)
#define OF_THE_DYING (me + 3)
byte lock = FREE;

mtype = { GONE, QUEUES, HOLDS, COMMITS };
typedef Session {
    mtype state = GONE;
    byte timestamp, members, a, b, after
};
Session dying[2];

/* ---- What a server knows. */

mtype = { IDLE, ALONE, RAN, LOCKED, CHECKED, ON_DISK, MARKED, IN_DOUBT, LOOKING, UNKNOWN };
byte marked[2];       /* results are marked stale up to this row */
byte result[2];       /* the kept result of a query that reads A: the row of its snapshot + 1, 0 for none */
byte look[2];         /* a look at the log that is under way: the last row that it read + 1, 0 for none */
bool gap[2];          /* that look did not find the row up to which results are marked */
byte known[2];        /* all rows after this one, up to `marked`, were seen here */

mtype = { NOBODY, ARRIVED, COVERED, READY, LOST };
mtype query[2] = NOBODY;
byte questions[2];    /* still to be asked; a server that will be asked nothing more needs no results */
#define is_asked(server) (questions[server] || query[server] != NOBODY)

/* ---- What the claims are about, and the bounds. */

byte in_log;          /* the mutations in the log */
byte refused;         /* those whose caller was told that they have failed */
byte told;            /* the newest row whose state a client was told of */
byte faults = FAULTS;
byte forgets = FORGETS;

hidden byte i, touched, lost_writes, saw_a, saw_b, count, largest; /* used within one step only */

inline touched_between(from, to) {
    touched = 0;
    for (i : (from) + 1 .. (to)) { touched = touched | log[i].touched }
}

/* Whether rows after this one may have been dropped: the oldest that is left is a later one. */
#ifdef MISTAKE_DROPPED_ROWS_FORGOTTEN
#define misses_rows_after(row) false
#else
#define misses_rows_after(row) (oldest > (row))
#endif

inline append(stamp, its_members, its_a, its_b, its_after) {
    assert(newest == its_after);              /* nobody committed between the check and the commit */
    assert((its_members & in_log) == 0);      /* nothing is done twice */
    assert((its_members & refused) == 0);     /* what was refused never appears */
    newest++;
    log[newest].members = its_members;
    log[newest].a = its_a;
    log[newest].b = its_b;
    log[newest].touched = (its_a != log[newest - 1].a -> A : 0) + (its_b != log[newest - 1].b -> B : 0);
    in_log = in_log | its_members;
#ifndef MISTAKE_TIMESTAMP_AFTER_COMMIT
    log[newest].timestamp = stamp;
    assert(stamp > log[newest - 1].timestamp) /* timestamps grow in the order of commits */
#endif
}

/* The timestamp of a snapshot: the largest that it sees. */
inline find_largest() {
    largest = 0;
    for (i : 0 .. newest) { largest = later(largest, log[i].timestamp) }
}

inline close_session(as) {
    dying[me].state = as;
    dying[me].timestamp = 0;
    dying[me].members = 0;
    dying[me].a = 0;
    dying[me].b = 0;
    dying[me].after = 0
}

/* The rows behind `from` make results stale, and results are marked up to the row `upto`. */
inline mark(from, upto, has_gap) {
    if
    :: is_asked(me) && upto > marked[me] ->
        touched_between(from, upto);
        if
        :: has_gap -> result[me] = 0; known[me] = upto
        :: !has_gap && touched & A -> result[me] = 0
        :: else
        fi;
        marked[me] = upto
    :: else
    fi
}

inline forget_results() { marked[me] = 0; result[me] = 0; look[me] = 0; gap[me] = false; known[me] = 0 }

/* ---- A server's writer. */

inline choose(it) {
    if
    :: it = kind(A, B)
    :: it = kind(B, A)
    :: KINDS > 2 -> it = kind(A, A)
    :: KINDS > 3 -> it = kind(A + B, 0)
    :: KINDS > 4 -> it = kind(0, A)
    fi
}

inline take(slot) {
    id[slot] = first + taken;
    taken++
}

/* Take what waits, and run it on the snapshot `base`. What handlers see follows from the snapshot and their order: see check(). */
inline run_members() {
    if
    :: !id[0] -> take(0)
    :: else
    fi;
    if
    :: !id[1] && taken < mutations -> take(1)
    :: true
    fi;
    choose(it[0]);
    if
    :: id[1] -> choose(it[1])
    :: else
    fi
}

/* Compare what the members read with the rows since the snapshot, leave out those that lost, and name the moment. */
inline check(clock) {
    touched_between(base, newest);
    lost_writes = 0;
    saw_a = log[base].a;
    saw_b = log[base].b;
    a = log[newest].a;
    b = log[newest].b;
    after = newest;
    count = 0;
    for (i : 0 .. 1) {
        if
        :: id[i] ->
            if
#ifdef MISTAKE_LATER_MEMBERS_KEPT
            :: misses_rows_after(base) || reads(it[i]) & touched ->
#else
            :: misses_rows_after(base) || reads(it[i]) & (touched | lost_writes) ->
#endif
                assert(!alone);                          /* the second run does not lose */
                lost_writes = lost_writes | writes(it[i])
            :: else ->
                assert(!(reads(it[i]) & A) || saw_a == a); /* serializable: what it saw is what is there at its place */
                assert(!(reads(it[i]) & B) || saw_b == b);
                kept = kept | 1 << i;
                if :: writes(it[i]) -> members = members | bit_of(id[i]); count++ :: else fi;
                if :: writes(it[i]) & A -> a = id[i] :: else fi;
                if :: writes(it[i]) & B -> b = id[i] :: else fi
            fi;
            if :: writes(it[i]) & A -> saw_a = id[i] :: else fi;
            if :: writes(it[i]) & B -> saw_b = id[i] :: else fi
        :: else
        fi
    }
#ifndef MISTAKE_TIMESTAMP_OF_SNAPSHOT
    timestamp = later(clock, log[newest].timestamp + 1) + count - 1
#else
    timestamp = later(clock, log[base].timestamp + 1) + count - 1
#endif
}

inline tell(row) {
    if :: is_asked(0) || is_asked(1) -> told = later(told, row) :: else fi
}

inline answer() {
    assert((members & in_log) == members);               /* nothing leaves before it is on disk */
    tell(place)
}

inline refuse() {
    assert((members & in_log) == 0);
    refused = refused | members
}

/* Is the token there? It is, if at all, in a row behind the group's snapshot. */
inline look_for_token() {
    for (i : oldest .. newest) {
        if :: log[i].members == members -> place = i :: else fi
    }
}

/* What the group has read, and what it was going to commit. */
inline forget_run() { it[0] = 0; it[1] = 0; a = 0; b = 0; after = 0; timestamp = 0 }

/* Those of `kept` have been told; the others move up, and run again. */
inline part_with_kept() {
    if :: kept & 2 -> id[1] = 0 :: else fi;
    if :: kept & 1 -> id[0] = id[1]; id[1] = 0 :: else fi;
    kept = 0;
    members = 0;
    base = 0;
    place = 0;
    alone = false;
    forget_run()
}

inline leave_dying(as) {
    faults--;
    dying[me].state = as;
    if
    :: as == COMMITS ->
        dying[me].timestamp = timestamp;
        dying[me].members = members;
        dying[me].a = a;
        dying[me].b = b;
        dying[me].after = after
    :: else
    fi;
    if :: lock == OURS -> lock = OF_THE_DYING :: else fi
}

#define can_fail (faults > 0 && dying[me].state == GONE)

proctype Server(bit me; byte first, mutations) {
    mtype at = IDLE;
    byte taken;             /* mutations that have been begun */
    byte id[2], it[2];      /* the group: which mutations, and what they read and write */
    byte base;              /* the row that its snapshot ends with */
    bool alone;             /* it had the lock before its snapshot */
    byte kept;              /* bits: who did not lose */
    byte timestamp, members, a, b, after; /* what is to be committed, and behind which row */
    byte place;             /* the row where it stands */

    do
    /* A group: the snapshot first, then the lock. */
    :: atomic { at == IDLE && !id[0] && taken < mutations -> base = newest; run_members(); at = RAN }
    :: d_step { at == RAN && !(writes(it[0]) | writes(it[1])) -> kept = 3; place = base; forget_run(); at = ON_DISK }
    :: d_step { at == RAN && (writes(it[0]) | writes(it[1])) && lock == FREE -> lock = OURS; at = LOCKED }

    /* A group of those that lost, or any where others are often in the way: the lock first, then the snapshot. */
#ifndef MISTAKE_LOCK_INSIDE_BEGIN
    :: d_step { at == IDLE && (id[0] || taken < mutations) && lock == FREE -> lock = OURS; at = ALONE }
    :: atomic { at == ALONE -> base = newest; alone = true; run_members(); at = LOCKED }
#else
    :: d_step { at == IDLE && id[0] -> base = newest; at = ALONE }
    :: atomic { at == ALONE && lock == FREE -> lock = OURS; alone = true; run_members(); at = LOCKED }
#endif

    /* Under the lock: the check, then COMMIT. */
    :: atomic { at == LOCKED ->
           if :: timestamp = 0 :: timestamp = AHEAD fi;
           d_step {
               check(timestamp);
               if
               :: members -> at = CHECKED
               :: else -> place = base; lock = FREE; forget_run(); at = ON_DISK
               fi } }
#ifdef MISTAKE_ANSWER_BEFORE_COMMIT
    :: d_step { at == CHECKED -> answer() }
#endif
    :: d_step { at == CHECKED ->
           append(timestamp, members, a, b, after);
           place = newest;
           if :: alone :: else -> lock = FREE fi;
           forget_run();
           at = ON_DISK }
#ifdef MISTAKE_TIMESTAMP_AFTER_COMMIT
    :: d_step { at == ON_DISK && !log[place].timestamp -> find_largest(); log[place].timestamp = largest + 1 }
#endif

    /* After it: unlock, mark, answer. */
#ifndef MISTAKE_UNLOCK_FORGOTTEN
    :: d_step { at == ON_DISK && lock == OURS -> lock = FREE }
    :: d_step { at == ON_DISK && lock != OURS ->
#else
    :: d_step { at == ON_DISK ->
#endif
#ifndef MISTAKE_ROWS_BEFORE_SNAPSHOT_UNMARKED
           mark(marked[me], place, misses_rows_after(marked[me]));
#else
           mark(base, place, misses_rows_after(base));
#endif
           at = MARKED }
    :: d_step { at == MARKED -> answer(); part_with_kept(); at = IDLE }

    /* The database refuses the COMMIT: a full disk. Or the connection is lost just before it. */
    :: d_step { at == CHECKED && can_fail -> leave_dying(HOLDS); refuse(); part_with_kept(); at = IDLE }

    /* The connection is lost elsewhere: nothing has been done yet, or all of it. */
    :: d_step { (at == RAN || at == ALONE || at == LOCKED) && can_fail ->
           if :: lock == OURS -> leave_dying(HOLDS) :: else -> leave_dying(QUEUES) fi;
           base = 0; alone = false; forget_run(); at = IDLE }
    :: d_step { at == ON_DISK && lock == OURS && can_fail -> leave_dying(HOLDS) }

    /* The connection is lost during COMMIT. */
    :: d_step { at == CHECKED && can_fail -> leave_dying(COMMITS); alone = false; forget_run(); at = IN_DOUBT }
#ifndef MISTAKE_DOUBT_WITHOUT_LOCK
    :: d_step { at == IN_DOUBT && lock == FREE -> lock = OURS; at = LOOKING }
#else
    :: d_step { at == IN_DOUBT -> at = LOOKING }
#endif
    :: d_step { at == LOOKING && can_fail -> leave_dying(HOLDS); at = IN_DOUBT }
    :: atomic { at == LOOKING ->
           d_step { look_for_token(); if :: lock == OURS -> lock = FREE :: else fi };
           if
           :: place -> at = ON_DISK
           :: !place && misses_rows_after(base) -> at = UNKNOWN
           :: !place && !misses_rows_after(base) -> refuse(); part_with_kept(); at = IDLE
           :: !place && !misses_rows_after(base) -> kept = 0; members = 0; base = 0; at = IDLE /* they run again */
           fi }
    :: d_step { at == IN_DOUBT -> at = UNKNOWN }           /* no connection to be had: it is given up */
    :: d_step { at == UNKNOWN -> part_with_kept(); at = IDLE }

    /* The server dies, and another starts in its place. */
    :: d_step { can_fail ->
           if
           :: at == CHECKED -> leave_dying(COMMITS)
           :: at != CHECKED && lock == OURS -> leave_dying(HOLDS)
           :: at == RAN || at == IN_DOUBT || (at == IDLE && id[0]) -> leave_dying(QUEUES)
           :: else -> faults--
           fi;
           kept = 3;
           part_with_kept();
           forget_results();
           if :: is_asked(me) -> marked[me] = newest :: else fi;
           if :: query[me] != NOBODY -> query[me] = LOST :: else fi;
           at = IDLE }

    :: at == IDLE && !id[0] && taken == mutations -> break
    od
}

/* ---- The database without a client, and with time. */

#if FAULTS
proctype Dying(bit me) {
end:
    do
    :: d_step { dying[me].state == QUEUES && lock == FREE -> lock = OF_THE_DYING; dying[me].state = HOLDS }
    :: d_step { dying[me].state == COMMITS ->
           append(dying[me].timestamp, dying[me].members, dying[me].a, dying[me].b, dying[me].after);
           close_session(HOLDS) }
    :: d_step { dying[me].state == COMMITS -> close_session(HOLDS) } /* it was rolled back */
    :: d_step { dying[me].state == HOLDS -> lock = FREE; close_session(GONE) }
    od
}
#endif

#if FORGETS
proctype Time() {
end:
    do
    :: d_step { forgets > 0 && oldest < newest -> forgets--; oldest = newest }
    od
}
#endif

#if QUERIES_0 + QUERIES_1
/* ---- Answers: looks at the log, and a client that asks one question after another. */

proctype Looks(bit me) {
end:
    do
    :: d_step { is_asked(me) && !look[me] && (query[me] == ARRIVED || marked[me] < newest) ->
           look[me] = newest + 1;
           gap[me] = misses_rows_after(marked[me]);
           if :: query[me] == ARRIVED -> query[me] = COVERED :: else fi }
    :: d_step { look[me] ->
           mark(marked[me], look[me] - 1, gap[me]);
           look[me] = 0;
           gap[me] = false;
#ifdef MISTAKE_LOOK_BEGUN_BEFORE
           if :: query[me] == ARRIVED -> query[me] = READY :: else fi;
#endif
           if :: query[me] == COVERED -> query[me] = READY :: else fi }
    od
}

/* An answer from the state of row `seen` is that of row `moment` too, or of a later one: what it read has not changed between them. */
inline is_no_older_than(seen, moment) {
    touched_between(seen, moment);
    assert(!(touched & A))
}

proctype Client(bit me) {
    byte floor;             /* what had been told when it asked */
    byte seen;              /* the row of its own snapshot + 1 */

    do
    :: questions[me] > 0 ->
        d_step { questions[me]--; floor = told; query[me] = ARRIVED };
        if
        :: d_step { query[me] == READY && result[me] ->
               is_no_older_than(result[me] - 1, floor);
               is_no_older_than(result[me] - 1, marked[me]);
               tell(result[me] - 1) }
        :: d_step { query[me] == READY && !result[me] -> seen = newest + 1 };
            if
            :: d_step { query[me] == READY && marked[me] >= seen - 1 ->
                   is_no_older_than(seen - 1, floor);
                   tell(seen - 1);
                   touched_between(seen - 1, marked[me]);
#ifndef MISTAKE_RESULT_ENTERS_UNCHECKED
                   if :: touched & A || known[me] > seen - 1 :: else -> result[me] = seen fi;
#else
                   result[me] = seen;
#endif
               }
            :: query[me] == LOST
            fi
        :: query[me] == LOST
        fi;
        d_step {
            query[me] = NOBODY;
            floor = 0;
            seen = 0;
            if :: is_asked(me) :: else -> forget_results() fi;
            if :: is_asked(0) || is_asked(1) :: else -> told = 0 fi
        }
    :: questions[me] == 0 -> break
    od
}
#endif

#if READERS
/* Somebody who looks with SQL, twice. */
proctype Reader() {
    byte state, timestamp;
    d_step { state = newest; find_largest(); timestamp = largest };
    d_step { find_largest(); assert(largest != timestamp || newest == state) }
}
#endif

init {
    atomic {
        run Server(0, 1, MUTATIONS_0);
        run Server(1, 1 + MUTATIONS_0, MUTATIONS_1);
#if FAULTS
        run Dying(0);
        run Dying(1);
#endif
#if FORGETS
        run Time();
#endif
#if QUERIES_0
        questions[0] = QUERIES_0;
        result[0] = 1;         /* an earlier run left it */
        run Looks(0);
        run Client(0);
#endif
#if QUERIES_1
        questions[1] = QUERIES_1;
        result[1] = 1;
        run Looks(1);
        run Client(1);
#endif
#if READERS
        run Reader();
#endif
    }
}
