/* SPDX-License-Identifier: Apache-2.0
 * Private to datapath/: what workers, the service thread and the control thread share about splices.
 *
 *   carrier.c  the workers' door: carriers behind one table, counts, delivery of events
 *   tc.c       the carrier that is TC: a connection's life, bind, arm, unbind
 *   ids.c      free splice ids
 *   frame.c    our framing state → the walker's
 *   service.c  the thread: ring buffer, then by and by watch.c and gc.c
 *   watch.c    what is wrong with a splice of ours that no event tells
 *   gc.c       splices of dead owners, closed connections, older versions
 *   owner.c    who is alive: locks below the pins
 *   diag.c     questions to the kernel's sockets by tuple
 *   flow.c     kvsteer flow
 *   served.c   devices: may a connection by it be spliced
 *
 * Life of an id: POOL (free, in ids) → LENT (in a worker's cache) → BOUND (slot.pair) → LENT or POOL; or LIMBO: bound
 * by somebody else, a dead owner or a live one, or an unbind that the kernel refused for the moment. The service thread
 * alone brings an id out of LIMBO.
 */
#ifndef KVS_DATAPATH_SPLICE_INT_H
#define KVS_DATAPATH_SPLICE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/time.h"
#include "datapath/datapath_int.h"

#define IDS_CACHE     64
#define SERVED_MAX    64
#define STALL_NS      (60 * NS_PER_S)
#define ORPHAN_NS     (900 * NS_PER_S)	/* an orphan without progress for so long: TCP has given up on either side */
#define ORPHAN_CUT_NS (10 * NS_PER_S)	/* and of one that cannot be completed: its peers have been told */
#define LATE_NS	      (100 * NS_PER_MS) /* an event that has not come by then is lost */
#define STRANGERS     16

/* --- ids.c --- */

struct ids {
	uint32_t *free;
	uint32_t n, max;
};

int ids_init(struct ids *s, uint32_t max);
void ids_free(struct ids *s);
unsigned ids_take(struct ids *s, uint32_t *ret, unsigned want); /* the lowest of those given last come first */
void ids_give(struct ids *s, const uint32_t *v, unsigned n);

/* --- frame.c --- */

/* Where our walk stands, as the kernel's walker says it. False: at its end, or broken. */
bool frame_walk(const struct http_chunks *c, uint8_t *ret_walk, uint64_t *ret_left);

/* --- watch.c --- */

struct watch {
	uint32_t gen;
	uint32_t una;	  /* when <since> was taken */
	uint32_t data_in; /* segments with data that U's socket had got, when <segments> last moved */
	uint32_t told;	  /* by the watchdog */
	uint8_t quiet;	  /* data_in is known */
	uint64_t segments;
	uint64_t since;
};

/* What must be told about a splice of ours: bits of enum carrier_event_type. ENDED, DONE, BROKEN and ORPHAN have events
 * of their own, so they are told here only when those are late: when <late> says so, or their time is long ago.
 * <served>: our programs run on both devices. */
uint32_t watch_judge(const struct kvs_splice *s, uint32_t gen, struct watch *w, uint64_t now, uint64_t stall,
		     bool served);
/* Is it worth asking U's socket? It is active, and nothing has been diverted since the last look. */
bool watch_quiet(const struct kvs_splice *s, struct watch *w);
/* Has the pod's data gone to its socket instead, since the last look? <data_in>: as the socket says. */
bool watch_bypassed(const struct kvs_splice *s, struct watch *w, uint32_t data_in);

/* --- gc.c --- */

enum gc_splice { GC_KEEP, GC_UNBIND, GC_FORCE, GC_FREE };
/* A splice in LIMBO. <alive>: its owner lives; <progress_at>: when something of it moved last; <orphan>: after so long
 * without progress it is given up. */
enum gc_splice gc_judge_splice(const struct kvs_splice *s, uint64_t self, bool alive, uint64_t progress_at,
			       uint64_t now, uint64_t orphan);
enum gc_conn { GC_CONN_KEEP, GC_CONN_ASK, GC_CONN_DELETE };
/* <retain>: a closed one stays so long. <since>: one that was born before is asked for at once. */
enum gc_conn gc_judge_conn(const struct kvs_conn *c, bool bound, uint64_t now, uint64_t retain, uint64_t since);

/* --- shared --- */

enum id_state { ID_POOL, ID_LENT, ID_BOUND, ID_LIMBO };

struct slot {
	_Atomic(struct carrier_pair *) pair;
	_Atomic(struct carrier_worker *) worker;
	_Atomic uint32_t gen;
	uint64_t progress, progress_at; /* service thread: of one in LIMBO */
	struct watch watch;		/* service thread */
	uint32_t ended;			/* service thread: generation whose ENDED came by the ring */
};

struct served {
	_Atomic uint32_t ifindex; /* 0: free */
	_Atomic uint8_t why;	  /* enum carrier_why: OK, NOT_SERVED, LOOPBACK, NO_ETHERNET */
};

/* Counted by the service thread. */
#define SERVICE_COUNTS(X)                                                                      \
	X(LATE, late_event)	    /* the watchdog found what an event should have told */    \
	X(BAD_EVENT, bad_event)	    /* not ours to tell: a former owner's, or unbound since */ \
	X(ORPHAN_DONE, orphan_done) /* a dead owner's splice, at its end */                    \
	X(ORPHAN_STUCK, orphan_stuck)                                                          \
	X(ORPHAN_CUT, orphan_cut)	/* one of the peers has left it */                     \
	X(ORPHAN_UNUSED, orphan_unused) /* a dead owner's, that never became active */         \
	X(CONN_EXPIRED, connection_expired)                                                    \
	X(CONN_GONE, connection_gone) /* its socket went without a word */                     \
	X(UNBIND_LATER, unbind_later)                                                          \
	X(VERSION, version) /* pins of another version, no longer used */

enum service_count {
#define X(NAME, name) SERVICE_##NAME,
	SERVICE_COUNTS(X)
#undef X
		SERVICE_COUNTS_N
};

struct splicer {
	int map[MAPS]; /* of the datapath */
	int call[CALLS];
	uint64_t owner; /* the datapath's */
	uint32_t nids;
	uint64_t stall, retain, orphan;
	_Atomic uint32_t gen;
	struct slot *slots;
	_Atomic uint8_t *state; /* enum id_state */
	pthread_mutex_t ids_lock;
	struct ids ids;
	struct served served[SERVED_MAX];
	_Atomic bool no_nat[2]; /* this kernel knows no SO_ORIGINAL_DST, IPv4, IPv6 */

	/* Peers whose connections TC did not see: their devices are to be attached. */
	pthread_mutex_t strangers_lock;
	struct kvs_pod_key strangers[STRANGERS];
	unsigned nstrangers;

	struct datapath *dp; /* for its workers */

	/* service.c */
	pthread_t thread;
	bool started;
	int wake_fd;
	_Atomic bool stop, yield_ring;
	struct ring_buffer *ring;
	int ring_fd; /* the lock; -1: another daemon reads the ring */
	int diag_fd;
	uint32_t watch_at, limbo_at, orphans_seen;
	struct gc *gc;
	_Atomic uint64_t counts[SERVICE_COUNTS_N];
	_Atomic uint32_t orphans;
	/* Devices by which connections of the maps go; the control thread does not detach these. */
	pthread_mutex_t used_lock;
	uint32_t used[SERVED_MAX];
	unsigned nused;
	bool used_known; /* a whole sweep has been made */
};

/* A message to a worker. */
struct note {
	struct note *next;
	uint32_t id, gen, flags;
	uint8_t type;
	uint64_t bytes;
	uint32_t tail_n;
	char tail[];
};

struct carrier_worker {
	struct datapath *dp;
	struct loop *loop;
	void (*event)(void *arg, struct carrier_pair *p, const struct carrier_event *e);
	void *arg;
	struct carrier_worker *next;
	uint32_t ids[IDS_CACHE];
	unsigned nids;
	struct loop_post post;
	pthread_mutex_t inbox_lock;
	struct note *inbox, **inbox_end;
	bool posted;
	_Atomic uint64_t conns[2][CARRIER_WHYS_N], pairs[CARRIER_WHYS_N], arms[KVS_ARM_N + 1], events[CARRIER_EVENTS_N];
	_Atomic uint64_t arm_ns;		  /* spent on attempts to arm */
	_Atomic uint64_t bytes, segments, chunks; /* of splices that are unbound */
};

static inline void count(_Atomic uint64_t *c)
{
	atomic_fetch_add_explicit(c, 1, memory_order_relaxed);
}

/* A carrier. Connections and pairs remember theirs. */
struct carrier_ops {
	const char *name;
	void (*accepted)(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd);
	void (*dialing)(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd,
			const struct carrier_conn *c);
	void (*connected)(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn, int fd);
	void (*closed)(struct carrier_worker *w, struct splicer *sp, struct carrier_conn *conn);
	enum carrier_why (*bind)(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p,
				 uint64_t dispatched_at);
	enum carrier_arm (*arm)(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p,
				const struct carrier_arming *a);
	int (*look)(struct splicer *sp, const struct carrier_pair *p, struct carrier_view *ret);
	void (*closing)(struct splicer *sp, const struct carrier_pair *p);
	int (*finish)(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p, struct carrier_view *ret);
	int (*unbind)(struct carrier_worker *w, struct splicer *sp, struct carrier_pair *p, bool force,
		      struct carrier_view *ret);
};

enum { CARRIER_RELAY, CARRIER_TC, CARRIERS };
extern const struct carrier_ops carrier_tc;

/* tc.c */
int splice_call(const struct splicer *sp, enum call c, void *args, size_t n); /* what the program returned */
int splice_read(const struct splicer *sp, uint32_t id, struct kvs_splice *ret);
void view_fill(const struct kvs_splice *s, struct carrier_view *ret);

/* carrier.c: a message to the worker that has <id> bound as <gen>. Any thread. -ENOENT: nobody has. */
int carrier_tell(struct splicer *sp, uint32_t id, uint32_t gen, enum carrier_event_type type, uint32_t flags,
		 uint64_t bytes, const char *tail, size_t tail_n);

/* served.c */
enum carrier_why served_why(struct splicer *sp, uint32_t ifindex);
void served_set(struct splicer *sp, uint32_t ifindex, enum carrier_why why); /* control thread */
void served_drop(struct splicer *sp, uint32_t ifindex);
void stranger_add(struct splicer *sp, const struct kvs_addr *addr);
unsigned strangers_take(struct splicer *sp, struct kvs_pod_key ret[STRANGERS]);
bool device_used(struct splicer *sp, uint32_t ifindex);

/* service.c */
int service_start(struct splicer *sp);
void service_stop(struct splicer *sp);
void service_kick(struct splicer *sp);

/* gc.c: bounded work each; service thread */
void gc_limbo(struct splicer *sp, uint64_t now);
int gc_start(struct splicer *sp);
void gc_stop(struct splicer *sp);
void gc_conns(struct splicer *sp, uint64_t now);
void gc_versions(struct splicer *sp, uint64_t now);
int gc_close_conn(struct splicer *sp, const struct kvs_tuple *t, bool delete_now);

/* owner.c */
bool owner_alive(const char *dir, uint64_t owner);
int ring_lock(void); /* a descriptor, or -errno while another has it */

/* diag.c */
struct diag {
	uint8_t state;	  /* TCP_… */
	uint32_t data_in; /* segments with data that came in */
};
int diag_open(void);
int diag_ask(int fd, const struct kvs_tuple *t, struct diag *ret); /* -ENOENT: no such socket */
int diag_destroy(int fd, const struct kvs_tuple *t);

/* splicer.c */
struct splicer *splicer_new(struct datapath *dp);
void splicer_free(struct splicer *sp);

#endif
