/* SPDX-License-Identifier: Apache-2.0
 * What the files of proxy/ share; proxy.h says which file does what.
 *
 * Ownership: worker → clients → request → upstream while one is bound; worker → idle upstreams. Objects are unlinked at
 * once when they end and freed at the end of the loop's turn (`dead` is set in between), so a handler may look at an
 * object after a call that has ended it, and has to look at `dead` only.
 */
#ifndef KVS_PROXY_INT_H
#define KVS_PROXY_INT_H

#include <pthread.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/rand.h"
#include "base/time.h"
#include "datapath/datapath.h"
#include "http/http.h"
#include "http/inflate.h"
#include "http/json.h"
#include "http/sse.h"
#include "loop/loop.h"
#include "net/net.h"
#include "proxy/proxy.h"

#define RX_SIZE	       (256 * 1024)	/* a worker's receive scratch */
#define UNSENT_HIGH    (256 * 1024)	/* request bytes the pod has not taken, above which the client is not read */
#define BODY_STALL     (50 * NS_PER_MS) /* a body that pauses so long is steered by what is there */
#define LINGER_TIME    (2 * NS_PER_S)
#define DRAIN_IDLE     NS_PER_S /* for the request of a client that has just connected, when the daemon drains */
#define LINGER_BYTES   (64u << 20)
#define POOL_IDLE_MAX  (4 * NS_PER_S) /* uvicorn closes after 5 s */
#define POOL_PER_POD   256
#define PIECE	       (64 * 1024) /* of a body that is received and read at once */
#define EARLY_REST     (16 * 1024) /* of a body still to come, to begin forwarding before it is whole */
#define BODY_SPARE_MIN (32 * 1024)
#define BODY_SPARE_MAX (4u << 20) /* what is larger is given back at once */
#define TURN_BYTES     (2u << 20) /* per connection and turn: a bulk answer does not starve the others */
#define MATCH_HITS_MAX 512

struct worker;
struct request;

/* Something that is freed at the end of the turn. */
struct grave {
	struct grave *next;
	bool dead;
};

struct client {
	struct grave grave; /* first */
	bool readable, writable, rdhup;
	bool closing;	/* no further request: close when <out> is empty */
	bool lingering; /* we have shut down, and read until the peer has seen it */
	bool in_pump;
	bool shut; /* the socket is closed */
	struct loop_fd io;
	struct worker *w;
	struct list link;
	struct request *req;
	struct carrier_conn conn;
	uint64_t sent;		/* bytes that the socket took */
	struct loop_work again; /* goes on in the next turn */
	struct loop_timer timer;
	uint64_t since; /* when the present wait began */
	uint32_t drained;
	unsigned listener;
	struct buf in;	/* bytes read that belong to no request yet */
	struct buf out; /* answer bytes that the socket did not take */
	size_t scanned;
};

struct upstream {
	struct grave grave; /* first */
	bool connecting, readable, writable, hup;
	bool reused; /* has carried a request before */
	bool heard;  /* bytes of the present answer have come */
	bool shut;   /* the socket is closed */
	struct loop_fd io;
	struct worker *w;
	struct pod *pod;     /* a reference */
	struct request *req; /* NULL: idle, in the pool */
	struct carrier_conn conn;
	uint64_t received; /* bytes that the socket gave */
	struct list link;  /* the pod's idle ones, most recently used first */
	struct buf in;	   /* a response head that has not come whole */
	size_t scanned;
	uint64_t idle_since;
};

enum body_state { BODY_MORE, BODY_DONE };

enum api_kind { API_OTHER, API_COMPLETIONS, API_CHAT, API_MESSAGES, API_RESPONSES };

static inline bool api_is_chat(enum api_kind k) /* a template makes its text */
{
	return k >= API_CHAT;
}

/* The text that an engine will tokenize, and its prefixes' hashes. */
struct prompt {
	struct buf text;
	struct index_text hash; /* of the text's first hash.bytes; owns hash.at */
	uint32_t prefix;	/* bytes at the front that are the vocabulary's, not the request's */
	bool odd;		/* it has bytes that a tokenizer may rewrite */
};

enum splice { SPLICE_NOT, SPLICE_ARMED, SPLICE_ENDED };

/* What was predicted for a leg, to be compared with what its answer reports. */
struct check {
	enum stats_id why_not; /* STATS_N: it may be compared */
	uint32_t sure, block;  /* tokens that the pod's events say, and of a block */
	bool guessed;	       /* what was sent to it says more than its events do */
	bool queued;	       /* behind others that had no first token */
	bool doubted;
	float scale; /* then: what a token of <sure> has been worth */
};

/* A leg to try. */
struct leg {
	struct pod *pod; /* a reference */
	double own, work;
	uint32_t uncached, matched;
	/* What the index is told when the request goes there. */
	uint16_t holder; /* NO_HOLDER: nothing */
	bool exact;	 /* events confirm it where they flow; else it is in an LRU of */
	uint32_t lru_chunks;
	uint32_t from, age; /* of what it has of the prompt: chunks, and when it was said */
	struct check check;
};

#define NO_HOLDER UINT16_MAX

/* What the index was told of a request that is under way. */
struct told {
	uint64_t ns;
	uint64_t *at;	 /* the prompt's hashes at index_thin's places */
	uint32_t chunks; /* 0: there is nothing to tell, or not yet */
	uint8_t leg;	 /* told of legs[leg - 1] */
};

struct request {
	struct grave grave; /* first */
	struct client *c;
	struct upstream *u; /* of the leg under way */
	struct decision *d;
	struct proxy_pool *pool; /* NULL until decided */
	enum api_kind kind;
	bool head_method, minor_10, keep_alive, explain, opaque;
	bool is_json; /* says the path or the Content-Type */
	bool expect;  /* 100-continue is asked for and not answered */
	bool decided;
	bool vetted; /* all of the body was read and may pass */
	bool queued; /* counted in pool->queued */
	uint64_t arrived_ns, dispatch_ns, last_ns, stall_at;
	uint64_t session;

	/* toward the pod */
	struct buf head;	     /* rewritten request head */
	struct buf body;	     /* body bytes as received, framing included */
	struct buf plain;	     /* data of a chunked or packed body, for inspection */
	struct http_inflate *unpack; /* its Content-Encoding; NULL: none, or <opaque> */
	int unpacked;		     /* 0: more is to come, 1: to its end, else an error */
	enum http_framing framing;
	enum body_state body_state;
	uint64_t body_left;  /* HTTP_LENGTH: not received yet */
	uint64_t body_bytes; /* received */
	uint64_t data_bytes; /* of these, without chunk framing */
	struct http_chunks chunks;
	struct inspection *in;	     /* until the body has been read and is decided on */
	size_t head_sent, body_sent; /* of <head>, of <body> */
	int64_t memory;		     /* what of sh->memory it holds */

	/* legs, best first */
	struct leg legs[SCHED_RANKED_MAX];
	uint8_t nlegs, leg, retries, stale_retries;
	struct charge charge;
	struct told told;

	/* the answer */
	bool resp_head, resp_done, dechunk, resp_keep;
	bool resp_started; /* bytes of it went to the client */
	uint16_t status;
	uint32_t retry_after; /* seconds that a 429 or 503 asks for */
	enum http_framing resp_framing;
	uint64_t resp_left;
	struct http_chunks resp_chunks;
	struct usage_watch usage;
	struct carrier_pair pair;
	uint8_t spliced;     /* enum splice */
	bool splice_refused; /* relay the rest */
	bool long_tail;	     /* was asked for members that stand behind usage */
	uint64_t first_ns;
	uint64_t text_bytes; /* of the prompt, to learn bytes per token; 0: not known */
};

/* A pod's idle connections in one worker. */
struct pod_idle {
	struct pod *pod; /* a reference */
	unsigned n;
	struct list idle;
};

struct listener {
	struct loop_fd io;
	struct worker *w;
	unsigned no; /* in the configuration */
};

struct worker {
	struct proxy *px;
	struct proxy_shared *sh;
	unsigned id; /* its stats shard and qsbr reader */
	pthread_t thread;
	bool started, draining;
	struct loop *loop;
	struct carrier_worker *carrier;
	struct stats *st;
	struct rng rng;
	struct listener *listeners;
	struct list clients;
	_Atomic unsigned nclients; /* others look at it when they accept */
	struct grave *graves;
	struct loop_work bury;
	struct loop_timer sweep; /* idle upstreams that have grown old */
	struct pod_idle *idle;
	unsigned nidle;
	struct sched_state *sched; /* per pool */
	struct prompt spare;	   /* memory of the last prompt for the next */
	struct buf spare_body;	   /* and of a long body */
	/* scratch, valid during one call */
	char *rx;
	uint64_t slim_reqs; /* requests there had been when worker_slim last looked */
	struct http_head head;
	struct buf plain;
	struct index_hit *hits;
	struct sched_row *rows;
	uint32_t *row_blocks;
	struct check *checks;		     /* of the rows */
	struct template_work *template_work; /* made when first needed */
	struct encoder **edges;		     /* per pool; these too */
};

struct proxy {
	struct proxy_shared *sh;
	unsigned nworkers;
	struct worker *workers;
	pthread_mutex_t ring_lock;
	char *ring; /* ring_cap × DECISION_SIZE */
	uint64_t ring_serial;
	unsigned ring_cap;
};

/* worker.c */
void worker_bury(struct worker *w, struct grave *g);
void worker_slim(struct worker *w); /* give back scratch that nothing has used lately */

/* client.c */
void client_accept(struct loop_fd *f, uint32_t events);
void client_accept_rest(struct listener *ls); /* all that wait */
void client_drain(struct client *c);	      /* closed, if nothing is under way */
void client_pump(struct client *c);
void client_close(struct client *c, bool reset);
void client_shut(struct client *c, bool reset); /* its socket only */
void client_answered(struct client *c);		/* the request is over: what comes next on this connection */
int client_send(struct client *c, const char *p,
		size_t n);	    /* sent or kept; 0, -ENOMEM, or -EPIPE: the client is gone */
int client_flush(struct client *c); /* 0 (bytes may be left), -EPIPE */
void client_timer(struct client *c, uint64_t at_ns);

/* admit.c */
int request_new(struct client *c, struct str head); /* parse and start, or answer; 0 or -EPIPE when <c> was closed */

/* body.c */
void request_body_read(struct request *r);			      /* read more of the body from the client */
size_t request_body_feed(struct request *r, const char *p, size_t n); /* how much of it was the body's */
void request_ready(struct request *r);				      /* decide and dispatch */
void request_free_body(struct request *r);
void request_settle(struct request *r); /* sh->memory knows what it holds */
/* Bytes that a body may have; <pool> NULL: as long as no pool is known, what any of them allows. */
uint64_t body_limit(const struct worker *w, const struct proxy_pool *pool);

/* request.c */
const struct config_pool *request_limits(const struct request *r);
void request_dispatch(struct request *r);		      /* to legs[leg] */
void request_unqueue(struct request *r);		      /* it has a connection, or has ended */
void request_send(struct request *r);			      /* more of it to the pod */
void request_failed(struct request *r, enum pod_outcome why); /* the leg broke: retry, answer or cut */
bool request_retry_busy(struct request *r);		      /* the pod said 503: true if another is tried */
void request_tick(struct request *r, uint64_t now);	      /* the client's timer fired */
void request_finish(struct request *r);			      /* the answer is whole; ends it once the body is too */
void request_refuse(struct request *r, enum stats_id why, unsigned status, const char *type, const char *message);
void request_end(struct request *r, const char *end, enum stats_id how);
void request_abort(struct request *r); /* the client is gone */

/* api.c */
enum api_kind api_kind_of(const char *path);
bool api_path_allowed(const struct config_listener *ls, const char *path);

/* prompt.c. 0 or -ENOMEM, -ENOSPC. */
int prompt_start(struct worker *w, struct prompt *p, struct str prefix, size_t expect); /* empty but for <prefix> */
int prompt_hash(struct worker *w, struct prompt *p);					/* what text has more by now */
int prompt_set_prefix(struct worker *w, struct prompt *p, struct str prefix);  /* instead of the one there is */
int prompt_rewrite(struct worker *w, struct prompt *p, const struct vocab *v); /* to what ids give back */
void prompt_end(struct worker *w, struct prompt *p);			       /* gives its memory back */
void prompt_forget_spare(struct worker *w);
size_t prompt_memory(const struct prompt *p);

/* inspect.c: what a body says, read while it arrives. */
struct inspection {
	bool whole;	/* all of the body was there and is JSON */
	bool special;	/* the engine adds its special tokens */
	bool exact;	/* the text is what the engine tokenizes; else a canonical form of it */
	bool opaque;	/* no text (set by inspection_judge) */
	bool ids;	/* a prompt of token ids: text once the pool's vocabulary is known */
	bool stream;	/* asks for a stream */
	bool long_tail; /* asks for members that an answer has behind usage */
	bool lone;	/* the text has a surrogate without its other half: no engine takes it */
	bool decided;	/* early */
	bool late;	/* and a member has come since that steers */
	bool tools;	/* it has some */
	bool several;	/* asks for several answers, or of a part of its prompt: what is reported is not of it alone */
	bool unread;	/* the text has not been gathered: a template is to make it (inspection_gather) */
	bool some;	/* … and there is something to gather */
	bool state;	/* it goes on from what the engine has kept (previous_response_id) */
	bool salt_unknown; /* it has a salt that is not in <salt> */
	bool no_text;	   /* only looked through for what may not pass */
	uint8_t member;
	enum stats_id why;     /* opaque: the counter that says why */
	const char *forbidden; /* a member that clients may not set, or NULL */
	char model[128], salt[128];
	struct prompt prompt;
	uint32_t id_count;
	struct { /* the chosen pod's match, if the rest of the text cannot change it */
		bool known;
		uint64_t ns, best_bytes;
		uint32_t bytes, age, best_tokens;
		struct check check;
	} early;
	/* private */
	struct worker *w;
	enum api_kind kind;
	int err;
	const char *name, *inner;
	size_t early_at; /* bytes of text at which an early decision is tried */
	size_t expect, ids_from, ids_to, raw_from;
	uint32_t items;
	struct json json;
};
/* <expect>: bytes that the body announces. NULL: ENOMEM. */
struct inspection *inspection_new(struct worker *w, enum api_kind kind, uint64_t expect);
void inspection_free(struct inspection *in);
/* All of the body that has come, wherever it lies by now. */
void inspection_feed(struct inspection *in, struct str body, bool whole);
bool inspection_may_be_early(struct inspection *in);	 /* is it time to try decide_early? */
bool inspection_suspicious(const struct inspection *in); /* no JSON, and may hold what may not pass all the same */
void inspection_judge(struct inspection *in);		 /* what was fed is what is decided on */
/* The text of a token-id prompt; the body that was fed last is still there. 0, -ERANGE: an unknown id, -ENOMEM. */
int inspection_read_ids(struct inspection *in, const struct vocab *v);
int inspection_gather(
	struct inspection *in); /* the text that was left unread; the body that was fed last is still there */
void inspection_forget_text(struct inspection *in);

/* render.c: a chat's text is what its template makes of the body that was fed last, if that can be told */
/* <lacking>: rules (model/chat.h) that some pod lacks which may get it. */
void render_chat(struct worker *w, struct inspection *in, const struct proxy_pool *pool, uint32_t lacking);

/* edge.c: an exact hit ends where the prompt has an end of a token */
void edge_settle(struct worker *w, const struct proxy_pool *pool, struct str text, struct index_hit *hit);
void edges_free(struct worker *w);

/* decide.c: fills legs[] and the explain record. 0, or the status to refuse with. */
struct refusal {
	enum stats_id why;
	const char *type;
	char message[256];
};
int decide(struct request *r, struct refusal *no);
bool decide_early(struct request *r); /* true: the rest of the body cannot change it, and legs[] are filled */
void decide_rest(struct request *r);  /* after that: all of the body is here */

/* check.c: the answer of the leg under way is whole; it has told the tokens of its prompt, cached ones if <known> */
void check_answer(struct request *r, bool known, uint32_t reported, uint32_t prompt);

/* guess.c: what the pod of the leg under way will hold, told to the index's writer */
void guess_tell(struct request *r);
void guess_undo(struct request *r);    /* that leg has failed */
void guess_settled(struct request *r); /* nothing can fail it any more */
size_t guess_memory(const struct request *r);

/* upstream.c */
struct upstream *upstream_get(struct client *c, struct pod *p, bool fresh); /* NULL and errno */
void upstream_put(struct upstream *u);					    /* into the pool, or closed */
void upstream_close(struct upstream *u, bool reset);
void upstream_shut(struct upstream *u, bool reset); /* its socket only */
void upstream_sweep(struct loop_timer *t);
void upstream_close_idle(struct worker *w);

/* relay.c */
void relay_pump(struct request *r);

/* splice.c */
void splice_unbind(struct request *r);	 /* not bound: nothing */
void splice_try(struct request *r);	 /* to hand it over, if it is time */
bool splice_readable(struct request *r); /* U is. True: it was not for the relay */
/* C is, or has closed; or it was <reset>. True: it had all of its answer, the end is on its way here. */
bool splice_client_readable(struct request *r, bool reset);
uint64_t splice_last_byte(struct request *r, uint64_t now); /* since when the pod could have sent something */
bool splice_break(struct request *r, const char *end, enum stats_id how); /* both are reset; false: it is not spliced */
void splice_event(void *arg, struct carrier_pair *pair, const struct carrier_event *e);

/* answer.c */
void answer_error(struct client *c, unsigned status, const char *type, const char *message, unsigned retry_after_s,
		  bool keep);
bool answer_local(struct client *c, const struct http_head *h, const char *path); /* true: answered */

/* decision.c */
void decision_store(struct proxy *px, const struct decision *d);
void decision_log(const struct decision *d);

#endif
