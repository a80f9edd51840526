/* SPDX-License-Identifier: Apache-2.0
 * kvsim inside: pods, their connections, and the answers that are under way.
 *
 *   conn.c    bytes ↔ requests, HTTP/1.1 as uvicorn speaks it
 *   api.c     a request's path and body → an answer, or an error
 *   lift.c    the bodies' long strings
 *   answer.c  the texts of completions and chats, streamed or whole
 *   gen.c     which token comes next
 *   pod.c     the engine's clock
 *   metrics.c /metrics
 *   admin.c   models, health, sleep, adapters, /admin/config
 *
 * Ownership: a pod owns its connections, a connection the one answer that it waits for, an answer its sequences.
 * Nothing is freed while the engine calls back: a dead connection is put on pod->dead and reaped at the turn's end.
 */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/rand.h"
#include "engine.h"
#include "http/http.h"
#include "kvhttp.h"
#include "loop/loop.h"
#include "net/net.h"
#include "opts.h"
#include "pub.h"

struct sim {
	struct loop *loop;
	void *zmq;
	struct buf scratch; /* one message at a time */
};

struct pod {
	struct sim *sim;
	struct opts o; /* its own: /admin/config changes one pod */
	uint32_t index;
	char name[NET_NAME_MAX], host[NET_NAME_MAX];
	uint16_t port;
	struct loop_fd listener, tick;
	struct engine e;
	struct pub *pub; /* NULL: no events, or by HTTP */
	struct kvhttp *kvhttp;
	struct kv_sink no_events;
	struct loop_work kick, reap;
	uint64_t deadline; /* of the step under way */
	struct list conns, dead;
	uint64_t start_ns; /* monotonic */
	double start_wall; /* seconds */
	int sleep_level;   /* 0: awake */
	char engine_id[40];
	struct rng rng;
	uint64_t faults, connections;
};

struct answer;

struct conn {
	struct pod *pod;
	struct loop_fd io;
	struct list link;
	struct loop_timer idle;
	struct loop_work more;	  /* the next pipelined request */
	struct buf in, out, body; /* body: of a chunked request, its framing taken off */
	size_t scanned, head_len;
	uint64_t length, walked; /* of the body: declared; seen of its chunks */
	bool chunked, have_head, continued;
	struct http_chunks chunks;
	struct answer *answer; /* under way; NULL: waiting for a request */
	bool busy;	       /* an answer or a stall holds it */
	bool close_after, closing, dead;
	unsigned minor;
};

/* --- conn.c --- */
int conn_accept(struct pod *p);
void conn_send(struct conn *c, const void *p, size_t n);
void conn_sendv(struct conn *c, struct iovec *v, unsigned n);
void conn_done(struct conn *c);		    /* the answer is complete: the next request may come */
void conn_finish(struct conn *c);	    /* close it when all is sent */
void conn_kill(struct conn *c, bool reset); /* close it now; freed at the turn's end */
void conn_free(struct conn *c);

/* --- one-shot answers (reply.c) --- */
struct request {
	struct conn *c;
	const struct http_head *head;
	const char *path; /* normalised, without query */
	struct str query, body;
	char id[129]; /* x-request-id: the client's, or a fresh one */
	bool id_given;
};

/* <type> NULL: no content-type. */
void reply(const struct request *r, unsigned status, const char *type, struct str body);
void reply_method(const struct request *r, const char *allow);	      /* 405 */
void reply_json(const struct request *r, unsigned status, json_t *j); /* takes <j> */
/* vLLM's shape: {"error":{"message","type","param","code"}}; <param> may be NULL. */
void reply_error(const struct request *r, unsigned status, const char *type, const char *param, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void head_start(struct buf *b, const struct conn *c, unsigned status);
void head_end(struct buf *b, const struct conn *c, const char *request_id, bool chunked);
void random_hex(struct pod *p, char *out, unsigned digits);

/* --- api.c, admin.c --- */
void api_dispatch(const struct request *r);
bool admin_dispatch(const struct request *r); /* false: not its path */
void api_generate(const struct request *r, bool chat);
void api_embeddings(const struct request *r);
void api_tokenize(const struct request *r);
void api_detokenize(const struct request *r);
json_t *api_body(const struct request *r); /* NULL: refused already */
bool api_model(const struct request *r, const json_t *body, const struct opts_lora **ret_lora, const char **ret_name);

/* --- lift.c: long strings, kept from jansson --- */
json_t *lift_parse(struct str body, json_error_t *err); /* as json_loadb; forgets what the last call lifted */
struct str lift_text(const json_t *s); /* a string's text, lifted or not; lives until the next lift_parse */
void lift_free(void);

/* --- tok.c: the byte tokenizer, or a vocabulary's own --- */
struct ids {
	uint32_t *v;
	uint32_t n, cap;
};

int ids_put(struct ids *t, uint32_t id);
int tok_load(const char *dir, char *err, size_t err_len);
int tok_encode(struct str text, struct ids *out);
struct str tok_piece(uint32_t id); /* {NULL, 0}: no such token */
void tok_unload(void);
uint32_t tok_random(struct rng *r, uint32_t *state); /* of a made-up text, the next token */
int tok_chat(const json_t *messages, bool generation_prompt, struct buf *out);

/* --- answer.c --- */
#define STOP_MAX 8

struct gen {
	struct seq s;
	struct answer *a;
	unsigned index, prompt; /* which choice, of which prompt */
	struct rng rng;
	uint32_t word; /* of the made-up text */
	uint32_t eos_at;
	struct buf text;
	size_t sent;
	enum finish finish;
	const char *stop; /* the string that ended it */
	bool started, done;
};

struct answer {
	struct conn *c;
	bool chat, stream, usage, usage_each, ignore_eos, echo, want_ids, remote_decode;
	unsigned n, left;
	uint32_t max_tokens, min_tokens;
	struct gen *g;
	char *model, *lora_name, *lora_path, *salt;
	char id[160], rid[129];
	long created;
	const char *stop[STOP_MAX];
	unsigned nstop;
	size_t stop_longest;
	json_t *body;	    /* keeps the strings */
	uint32_t *echo_ids; /* mode echo: what to say */
	uint32_t necho;
	uint32_t remote_cached; /* what the prefill pod told; UINT32_MAX: nothing */
	uint32_t events;
	enum fault fault;
	bool cut, stalled; /* a fault has ended it; nothing more is sent */
	struct buf prefix; /* of each event */
};

void answer_start(struct answer *a);
void answer_free(struct answer *a);
enum finish gen_token(struct engine *e, struct seq *s);
void gen_done(struct engine *e, struct seq *s, enum finish why);

/* --- fault.c --- */
enum fault fault_draw(const struct request *r);
/* Do what happens before a head; true: the request is over. */
bool fault_before(const struct request *r, enum fault f);

/* --- pod.c --- */
struct pod *pod_new(struct sim *s, const struct opts *o, const struct net_addr *a, uint32_t index, char *err,
		    size_t err_len);
void pod_free(struct pod *p);
void pod_kick(struct pod *p); /* something was submitted */
void pod_configure(struct pod *p);
const struct opts_lora *pod_lora(const struct pod *p, const char *name);

/* --- metrics.c --- */
int metrics_write(struct pod *p, struct buf *out);

#endif
