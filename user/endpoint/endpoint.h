/* SPDX-License-Identifier: Apache-2.0
 * The table of pods: who exists (discovery), how loaded they say they are (scrape), what this gateway has sent to them
 * (the ledger), published to the workers as immutable snapshots.
 *
 * Ownership: a pod is reference counted. The table holds one reference, every snapshot one, every request that was
 * charged to it one; so a request always gives back to the pod that it was charged to, also when another pod has taken
 * the address since (field case H2).
 * Threads: the table belongs to the control thread. Workers read a snapshot inside a qsbr section, and use the ledger
 * from any thread (a spin lock per pod, held for a few instructions).
 */
#ifndef KVS_ENDPOINT_ENDPOINT_H
#define KVS_ENDPOINT_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/qsbr.h"
#include "net/net.h"

#define POD_NAME_MAX   NET_NAME_MAX
#define POD_MODELS_MAX 64
#define POD_RANKS_MAX  8

enum pod_role { ROLE_BOTH, ROLE_PREFILL, ROLE_DECODE };
enum pod_engine { ENGINE_UNKNOWN, ENGINE_VLLM, ENGINE_SGLANG, ENGINE_TRTLLM, ENGINE_TRITON };

/* What discovery says of a pod. Strings are owned by whoever holds the struct. */
struct pod_spec {
	struct net_addr addr;
	enum pod_role role;
	unsigned weight;	       /* 0 … 100, default 1; 0 takes no new requests */
	unsigned ranks;		       /* data-parallel ranks behind this address, default 1 */
	char events[128], replay[128]; /* ZMQ end points, "" for none; ports of rank r are base + r */
	char metrics[128];	       /* "host:port/path", "" for the pool's default */
};

/* Why a pod takes no new requests; bits. 0: it does. */
enum pod_down {
	POD_DOWN_HEALTH = 1,   /* active checks fail */
	POD_DOWN_EJECTED = 2,  /* answers are garbage or errors; until eject_until */
	POD_DOWN_DRAINED = 4,  /* an operator said so */
	POD_DOWN_REMOVED = 8,  /* discovery no longer lists it */
	POD_DOWN_ASLEEP = 16,  /* engine_sleep_state says it sleeps */
	POD_DOWN_BACKOFF = 32, /* 429/503 with Retry-After; until backoff_until */
};

/* Last values scraped. NAN: not known, which is not zero. */
struct pod_sample {
	uint64_t at_ns;			   /* monotonic; 0: never */
	double running, waiting, kv_usage; /* requests, requests, 0 … 1 (worst rank) */
	uint32_t block_size, num_blocks;   /* 0: not known */
	double process_start;		   /* seconds since the epoch, NAN */
	bool asleep;
};

/* Times of answers that the kernel carried: running totals, as it keeps them. */
struct pod_times {
	uint64_t ttft_ns, ttft_n; /* from dispatch to the first byte of the body */
	uint64_t gap_ns, gap_n;	  /* between segments with new data */
};

struct pod_clock {
	struct pod_times last; /* at the last look */
	bool looked;
	struct pod_mean {
		double s, n;	/* decayed sums of what was new at each look */
		unsigned empty; /* looks since there was anything */
	} ttft, gap;
};

/* Their means over about the last minute, in seconds. NAN: there were none, which is not zero. */
struct pod_pace {
	double ttft, gap;
};

/* LoRA adapters by what runs and waits, as vLLM tells; names joined by commas. */
struct pod_adapters {
	bool known;
	uint32_t max; /* that may run at once, 0: not told */
	char running[512], waiting[512];
};

/* Work that this gateway has sent and not seen finished. See the essay in ledger.c. */
struct ledger {
	atomic_flag lock;
	uint32_t n;	  /* requests not finished */
	uint32_t waiting; /* of these, without a first token */
	double backlog;	  /* predicted seconds of those without a first token */
	uint64_t last_first_ns;
	double s, t;	   /* learned: decayed sums of service seconds and token-equivalents */
	struct list queue; /* charges without a first token, oldest first */
	uint64_t total, failed, first_tokens;
};

/* Of requests of these kinds (bits) for this model the pod's index has not told the truth lately. */
struct pod_doubt {
	uint64_t model; /* hash of the name of its namespace, as base/rand.h's hash_bytes has it */
	uint32_t kinds;
	float scale[2]; /* what a token that it tells has been worth, by kind; 0 … 1 */
};
#define POD_DOUBTS_MAX 16

struct pool_rate; /* what all pods of a pool learned together; shared by them and counted */

struct pod {
	_Atomic uint32_t refs;
	uint32_t id;		 /* never reused */
	uint64_t key;		 /* hash of the name: equal in every process, for sched_row.key */
	uint32_t generation;	 /* of its address: 1, then 2 when a pod with the same address comes back … */
	unsigned pool;		 /* index in the configuration's pools */
	char name[POD_NAME_MAX]; /* ADDR:PORT, as shown everywhere */
	char ip[POD_NAME_MAX];
	struct pod_spec spec;
	uint16_t holder[POD_RANKS_MAX]; /* index holders of its ranks */
	_Atomic uint32_t down;		/* enum pod_down */
	_Atomic uint64_t eject_until, backoff_until;
	_Atomic uint32_t fails;	 /* consecutive failures of requests; see pod_result */
	_Atomic bool index_live; /* events flow and no gap is open: predictions are exact */
	_Atomic bool index_stale;
	_Atomic uint32_t event_block; /* tokens of a block, as the last event said; 0: none has */
	_Atomic uint64_t told;	      /* blocks that its events have told, copies too */
	_Atomic uint64_t event_seq;   /* number of the last batch of events, of any rank, + 1; 0: none has come */
	_Atomic uint64_t event_gaps;  /* that were seen in these numbers */
	_Atomic bool hybrid;	      /* its events tell of cache groups that are not indexed */
	_Atomic uint32_t chat_lacks;  /* model/chat.h: rules that its engine lacks; UINT32_MAX: not known */
	/* control thread only */
	enum pod_engine engine;
	char version[32];
	unsigned nmodels;
	char *models[POD_MODELS_MAX];
	char *roots[POD_MODELS_MAX]; /* of models[i]; NULL: itself, as for LoRA adapters */
	char model_root[256];	     /* the first root given, "" for none */
	struct pod_sample sample;
	struct pod_clock clock;
	struct pod_pace pace;
	struct pod_adapters adapters;
	unsigned ndoubts;
	struct pod_doubt doubts[POD_DOUBTS_MAX];
	char last_error[160]; /* of health, scrape or a garbage answer; shown by pod show */
	/* ledger and what the data path observes */
	struct ledger ledger;
	struct pool_rate *rate;
	_Atomic uint64_t predicted_tokens, reported_tokens, garbage, ejections;
	struct list link;
	uint32_t sources; /* table: bits of the sources that list it */
	uint64_t mark;
};

/* These follow discovery in place, so workers read them so. The other members of <spec> are the control thread's, but
 * for <addr> and <ranks>, which never change. */
static inline unsigned pod_weight(const struct pod *p)
{
	return __atomic_load_n(&p->spec.weight, __ATOMIC_RELAXED);
}

static inline enum pod_role pod_role(const struct pod *p)
{
	return __atomic_load_n(&p->spec.role, __ATOMIC_RELAXED);
}

/* A name by which requests ask for a model: served names, LoRA adapters. */
struct route {
	char *model;
	unsigned pool;
	uint64_t pods_mask[4]; /* which of snapshot->pods serve it (at most 256) */
	char *base;	       /* name of the index namespace: base model or adapter */
};

/* A pod's doubt, where workers find it. */
struct doubt {
	unsigned pod; /* in snapshot->pods */
	struct pod_doubt is;
};

/* Immutable view for the workers. */
struct snapshot {
	uint64_t serial;
	unsigned npods, nroutes;
	unsigned nlisted;	    /* pods that have told their models */
	struct pod **pods;	    /* each referenced */
	struct pod_sample *samples; /* of pods[i] when this was published */
	struct pod_pace *paces;	    /* likewise */
	unsigned ndoubts;
	struct doubt *doubts; /* all pods' */
	struct route *routes; /* sorted by model */
};

struct endpoints;

struct endpoints *endpoints_new(struct qsbr *q); /* NULL and errno */
void endpoints_free(struct endpoints *e);

#define ENDPOINTS_PODS_MAX 256 /* in the table and so in a snapshot */

/* Make the pods of <source> in <pool> equal to <specs>: adds, updates in place, removes (as POD_DOWN_REMOVED; requests
 * on it run on). A pod that several sources list stays until the last one drops it; the source that was seen first
 * decides on its spec. Another number of ranks is another pod. Returns how many were added and removed by address;
 * calls the hooks. -ENOSPC or -ENOMEM: some could not be added, all the rest is done. */
int endpoints_set(struct endpoints *e, unsigned pool, const char *source, const struct pod_spec *specs, unsigned n);

struct endpoints_hooks {
	void (*on_add)(void *arg, struct pod *p);
	void (*on_remove)(void *arg, struct pod *p); /* before the table's reference goes */
	void (*on_change)(void *arg, struct pod *p); /* events, replay or metrics of its spec are new; may be NULL */
	void *arg;
};
void endpoints_hook(struct endpoints *e, struct endpoints_hooks h);

/* The names that <pool> serves by configuration: they have a route also while no pod has told its models. Without them
 * the pool serves what its pods list; with them, of what the pods list, these and adapters (entries without a root).
 * A pod that lists models serves those; one that has not yet, every name configured. 0 or -ENOMEM. */
int endpoints_pool_models(struct endpoints *e, unsigned pool, char *const *names, unsigned n);

/* Control thread: what was learned of a pod. Publish afterwards. */
void pod_set_sample(struct pod *p, const struct pod_sample *s); /* and POD_DOWN_ASLEEP with it */
/* Once a second. True: its pace has changed. */
bool pod_set_times(struct pod *p, const struct pod_times *t);
/* roots[i] NULL, or <roots> NULL: itself; give adapters none. 0, -ENOMEM (nothing changed), or -E2BIG: the first
 * POD_MODELS_MAX were taken. */
int pod_set_models(struct pod *p, char *const *names, const char *const *roots, unsigned n);
void pod_set_down(struct pod *p, enum pod_down bit, bool on);

/* Build and swap the snapshot; free old ones that nobody reads. -ENOMEM: the old one stays. Costs some microseconds a
 * pod: gather changes and publish once per turn of the loop. */
int endpoints_publish(struct endpoints *e);
const struct snapshot *endpoints_snapshot(const struct endpoints *e); /* inside a qsbr section */
struct pod *endpoints_find(struct endpoints *e, struct str name);     /* control thread; no reference added */
struct list *endpoints_pods(struct endpoints *e);		      /* control thread: all pods, by link */

const struct route *snapshot_route(const struct snapshot *s, struct str model); /* NULL: no pool serves it */

/* Sets the bits of all pods of <pool> (UINT_MAX: of every pool): for requests that name no model, or one that nobody
 * could have told yet (nlisted is 0). Returns how many. */
unsigned snapshot_any(const struct snapshot *s, unsigned pool, uint64_t mask[4]);

struct pod *pod_ref(struct pod *p);
void pod_unref(struct pod *p);
bool pod_usable(const struct pod *p, uint64_t now_ns);	     /* for new requests */
bool pod_last_resort(const struct pod *p, uint64_t now_ns);  /* usable but for POD_DOWN_BACKOFF: if there is no other */
uint32_t pod_down_now(const struct pod *p, uint64_t now_ns); /* bits without those whose time is over */

/* What an answer says about a pod's health. 4xx counts neither way; 429/503 back off for Retry-After (at most a
 * minute); a failure to connect, a 5xx, garbage or a cut answer counts towards ejection: after 5 in a row, 10 s, then
 * at each failure of a trial twice as long, up to 5 min. 2xx resets, unless the pod is out: then it is an old one. */
enum pod_outcome { POD_OK, POD_CLIENT_ERROR, POD_BUSY, POD_SERVER_ERROR, POD_CONNECT_FAILED, POD_GARBAGE, POD_CUT };
void pod_result(struct pod *p, enum pod_outcome o, uint32_t retry_after_s, uint64_t now_ns);

/* --- ledger: a request's entry, embedded in it. One charge, at most one first, exactly one release. --- */
struct charge {
	struct pod *pod; /* NULL: not charged */
	double own;	 /* predicted seconds, as charged; never recomputed */
	double work;	 /* token-equivalents */
	uint32_t uncached;
	bool first;
	uint64_t dispatch_ns;
	struct list link;
};

void ledger_charge(struct pod *p, struct charge *c, double own, double work, uint32_t uncached, uint64_t now_ns);
/* First body byte of a streamed 2xx answer: learns the rate. Not for other answers: their first byte comes when all is
 * computed (or nothing was), ledger_release does what they need. */
void ledger_first(struct charge *c, uint64_t now_ns);
void ledger_release(struct charge *c, bool failed, uint64_t now_ns); /* harmless when not charged */

/* One pod's terms for the scheduler, read consistently. */
struct ledger_view {
	uint32_t n, waiting;
	double backlog; /* B_j with the head's credit, ≥ 0 */
	double s, t;
};
void ledger_read(struct pod *p, uint64_t now_ns, struct ledger_view *ret);
void ledger_read_pool(const struct pod *p, double *ret_s, double *ret_t); /* sums of <p>'s pool */

#endif
