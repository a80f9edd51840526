/* SPDX-License-Identifier: Apache-2.0
 * The scene of test_events.c and test_events_replay.c: a PUB and a ROUTER socket in this process, on TCP, that play an
 * engine, and the events thread with an index of its own. Tokens are bytes (vocab_bytes), blocks are short texts.
 */
#ifndef SELFTESTS_EVENTS_SCENE_H
#define SELFTESTS_EVENTS_SCENE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/time.h"
#include "events/events_int.h"

#if defined(__SANITIZE_THREAD__)
/* libzmq is not instrumented: how it hands messages from thread to thread is not seen. Ours (pthread_create in
 * events.c) are. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:libzmq.so\nrace:libzmq.so\n";
}
#endif

#define BLOCK 16
#define BASE  "org/M"

/* --- an engine --- */

struct engine {
	void *zmq, *pub, *router;
	unsigned pub_port, replay_port;
	bool once; /* try to bind once only */
};

static inline unsigned bind_any(void *sock, unsigned port, bool once)
{
	char url[128];
	size_t n = sizeof(url);
	int zero = 0;

	zmq_setsockopt(sock, ZMQ_LINGER, &zero, sizeof(zero));
	snprintf(url, sizeof(url), port ? "tcp://127.0.0.1:%u" : "tcp://127.0.0.1:*", port);
	/* After a restart the old socket may still be closing. */
	for (int i = 0; i < (once ? 1 : 200) && zmq_bind(sock, url); i++)
		usleep(10000);
	n = sizeof(url);
	assert_int_equal(zmq_getsockopt(sock, ZMQ_LAST_ENDPOINT, url, &n), 0);
	return strrchr(url, ':') ? (unsigned)strtoul(strrchr(url, ':') + 1, NULL, 10) : 0;
}

static inline void engine_start(struct engine *g, bool replay)
{
	g->zmq = zmq_ctx_new();
	g->pub = zmq_socket(g->zmq, ZMQ_XPUB);
	g->pub_port = bind_any(g->pub, g->pub_port, g->once);
	g->router = NULL;
	if (!replay)
		return;
	g->router = zmq_socket(g->zmq, ZMQ_ROUTER);
	g->replay_port = bind_any(g->router, g->replay_port, g->once);
}

static inline void engine_stop(struct engine *g)
{
	zmq_close(g->pub);
	if (g->router)
		zmq_close(g->router);
	zmq_ctx_term(g->zmq);
}

static inline bool readable(void *sock, int ms)
{
	zmq_pollitem_t p = { .socket = sock, .events = ZMQ_POLLIN };

	return zmq_poll(&p, 1, ms) > 0;
}

/* Until the subscription has arrived: what is published before it is lost. */
static inline void engine_subscribed(struct engine *g)
{
	char b[16];

	assert_true(readable(g->pub, 5000));
	assert_int_equal(zmq_recv(g->pub, b, sizeof(b), 0), 1);
	assert_int_equal(b[0], 1);
}

static inline void put64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(v >> (56 - 8 * i));
}

static inline void publish(struct engine *g, uint64_t seq, const struct buf *payload)
{
	uint8_t s[8];

	put64(s, seq);
	zmq_send(g->pub, "", 0, ZMQ_SNDMORE);
	zmq_send(g->pub, s, 8, ZMQ_SNDMORE);
	zmq_send(g->pub, buf_data(payload), buf_len(payload), 0);
}

struct asked {
	char id[64];
	size_t id_len;
	uint64_t from;
};

static inline struct asked engine_asked(struct engine *g)
{
	struct asked a = { .from = 0 };
	uint8_t s[8];

	assert_true(readable(g->router, 5000));
	a.id_len = (size_t)zmq_recv(g->router, a.id, sizeof(a.id), 0);
	assert_int_equal(zmq_recv(g->router, s, 8, 0), 0);
	assert_int_equal(zmq_recv(g->router, s, 8, 0), 8);
	for (int i = 0; i < 8; i++)
		a.from = a.from << 8 | s[i];
	return a;
}

/* New framing has the topic, the old one does not. */
static inline void reply(struct engine *g, const struct asked *a, uint64_t seq, const struct buf *payload, bool topic)
{
	uint8_t s[8];

	put64(s, seq);
	zmq_send(g->router, a->id, a->id_len, ZMQ_SNDMORE);
	zmq_send(g->router, "", 0, ZMQ_SNDMORE);
	if (topic)
		zmq_send(g->router, "kv@x@m", payload ? 6 : 0, ZMQ_SNDMORE);
	zmq_send(g->router, s, 8, ZMQ_SNDMORE);
	zmq_send(g->router, payload ? buf_data(payload) : "", payload ? buf_len(payload) : 0, 0);
}

static inline void reply_end(struct engine *g, const struct asked *a, bool topic)
{
	reply(g, a, UINT64_MAX, NULL, topic);
}

/* --- payloads: [ts, [event], 0] --- */

static double stamp = 1;

static inline void mp_u64(struct buf *b, uint64_t v)
{
	uint8_t x[9] = { 0xcf };

	put64(x + 1, v);
	buf_put(b, x, 9);
}

static inline void mp_str(struct buf *b, const char *s)
{
	uint8_t x[2] = { 0xd9, (uint8_t)strlen(s) };

	buf_put(b, x, 2);
	buf_put(b, s, x[1]);
}

static inline void mp_head(struct buf *b, unsigned events)
{
	uint8_t x[11] = { 0x93, 0xcb };
	union {
		double d;
		uint64_t u;
	} ts = { .d = stamp++ };

	put64(x + 2, ts.u);
	x[10] = (uint8_t)(0x90 | events);
	buf_put(b, x, 11);
}

struct what {
	uint64_t parent, hash; /* parent 0: none */
	const char *text;      /* of blocks of <block> bytes; their hashes count up from <hash> */
	unsigned block;
	const char *salt, *medium, *lora, *kind, *locality;
	unsigned lora_id, group; /* group: with <kind> or <grouped> */
	bool grouped;
	unsigned location_of; /* no tokens: only where that many known blocks are */
	const uint32_t *ids;  /* of as many tokens as <text> is long */
};

static inline void mp_opt(struct buf *b, const char *s)
{
	if (s)
		mp_str(b, s);
	else
		buf_put(b, "\xc0", 1);
}

static inline struct buf stored_as(const struct what *w)
{
	unsigned n = w->text ? (unsigned)strlen(w->text) / w->block : w->location_of;
	unsigned tokens = w->text ? n * w->block : 0;
	struct buf b = { 0 };
	uint8_t x[3] = { 0xdc };

	mp_head(&b, 1);
	buf_put(&b, "\x9d", 1);
	mp_str(&b, "BlockStored");
	x[1] = (uint8_t)(n >> 8);
	x[2] = (uint8_t)n;
	buf_put(&b, x, 3);
	for (unsigned i = 0; i < n; i++)
		mp_u64(&b, w->hash + i);
	if (w->parent)
		mp_u64(&b, w->parent);
	else
		buf_put(&b, "\xc0", 1);
	x[1] = (uint8_t)(tokens >> 8);
	x[2] = (uint8_t)tokens;
	buf_put(&b, x, 3);
	for (unsigned i = 0; i < tokens; i++)
		mp_u64(&b, w->ids ? w->ids[i] : (uint8_t)w->text[i]);
	mp_u64(&b, w->text ? w->block : 0);
	if (w->lora_id)
		mp_u64(&b, w->lora_id);
	else
		buf_put(&b, "\xc0", 1);
	mp_opt(&b, w->medium);
	mp_opt(&b, w->lora);
	if (w->salt)
		buf_put(&b, "\x91\x91", 2);
	mp_opt(&b, w->salt);
	if (w->kind || w->grouped)
		mp_u64(&b, w->group);
	else
		buf_put(&b, "\xc0", 1);
	mp_opt(&b, w->kind);
	buf_put(&b, "\xc0", 1); /* window */
	mp_opt(&b, w->locality);
	buf_put(&b, "\x00", 1);
	return b;
}

static inline struct buf stored(uint64_t parent, uint64_t hash, const char *text, unsigned block, const char *salt)
{
	return stored_as(&(struct what){ .parent = parent, .hash = hash, .text = text, .block = block, .salt = salt });
}

static inline struct buf removed_from(uint64_t hash, const char *medium)
{
	struct buf b = { 0 };

	mp_head(&b, 1);
	buf_put(&b, "\x93", 1);
	mp_str(&b, "BlockRemoved");
	buf_put(&b, "\x91", 1);
	mp_u64(&b, hash);
	mp_opt(&b, medium);
	buf_put(&b, "\x00", 1);
	return b;
}

static inline struct buf removed(uint64_t hash)
{
	return removed_from(hash, NULL);
}

static inline struct buf cleared(void)
{
	struct buf b = { 0 };

	mp_head(&b, 1);
	buf_put(&b, "\x91", 1);
	mp_str(&b, "AllBlocksCleared");
	buf_put(&b, "\x00", 1);
	return b;
}

/* --- the scene --- */

struct scene {
	struct engine g;
	struct qsbr q;
	struct kvindex *x;
	struct stats st;
	struct events *e;
	struct vocab *v;
	struct endpoints *table;
	struct pod *p;
};

static inline void on_add(void *arg, struct pod *p)
{
	((struct scene *)arg)->p = p;
	p->holder[0] = 3;
}

static inline void on_remove(void *arg, struct pod *p)
{
}

/* Of the gateway; the engine runs. */
static inline void begin_gateway(struct scene *c, bool replay, struct vocab *v, const struct events_keep *keep,
				 const struct index_secrets *secrets)
{
	struct pod_spec spec = { .weight = 1, .ranks = 1 };

	qsbr_init(&c->q, 1);
	c->x = secrets ? index_new_with(&c->q, 64 << 20, 8, secrets) : index_new(&c->q, 64 << 20, 8);
	c->v = v;
	c->e = events_start_timed(c->x, &c->st,
				  &(struct events_timing){ .idle_ns = 300 * NS_PER_MS,
							   .total_ns = 5 * NS_PER_S,
							   .cooldown_ns = 500 * NS_PER_MS },
				  keep);
	assert_non_null(c->e);
	c->table = endpoints_new(&c->q);
	endpoints_hook(c->table, (struct endpoints_hooks){ .on_add = on_add, .on_remove = on_remove, .arg = c });
	net_addr_parse(STR("127.0.0.1:8000"), &spec.addr);
	snprintf(spec.events, sizeof(spec.events), "tcp://127.0.0.1:%u", c->g.pub_port);
	if (replay)
		snprintf(spec.replay, sizeof(spec.replay), "tcp://127.0.0.1:%u", c->g.replay_port);
	assert_int_equal(endpoints_set(c->table, 0, "test", &spec, 1), 1);
	assert_int_equal(events_add(c->e, c->p, c->v, BASE), 0);
	engine_subscribed(&c->g);
}

static inline void begin_with(struct scene *c, bool replay, struct vocab *v)
{
	memset(c, 0, sizeof(*c));
	engine_start(&c->g, replay);
	begin_gateway(c, replay, v, NULL, NULL);
}

static inline void begin(struct scene *c, bool replay)
{
	begin_with(c, replay, vocab_bytes());
}

static inline void end_gateway(struct scene *c)
{
	events_stop(c->e);
	endpoints_free(c->table);
	vocab_unref(c->v);
	index_free(c->x);
}

static inline void end(struct scene *c)
{
	events_remove(c->e, c->p);
	end_gateway(c);
	engine_stop(&c->g);
}

static inline uint64_t stat(struct scene *c, enum stats_id id)
{
	return stats_sum(&c->st, 1, id);
}

/* Tokens of <text> that the pod is predicted to have, in the namespace of a model or adapter and a salt. */
static inline unsigned predicted_of(struct scene *c, const char *model, const char *text, const char *salt)
{
	struct str parts[2] = { str_of(model), str_of(salt) };
	struct index_text t;
	struct index_hit hits[8];
	uint64_t at[64];
	unsigned n, tokens = 0;

	index_text_init(&t, at, 64);
	assert_int_equal(index_text_feed(c->x, &t, text, strlen(text)), 0);
	qsbr_enter(&c->q, 0);
	n = index_match(c->x, index_namespace(c->x, parts, salt ? 2 : 1), &t, text, strlen(text), hits, 8);
	qsbr_leave(&c->q, 0);
	for (unsigned i = 0; i < n; i++)
		if (hits[i].holder == 3)
			tokens = hits[i].tokens;
	return tokens;
}

static inline unsigned predicted_in(struct scene *c, const char *text, const char *salt)
{
	return predicted_of(c, BASE, text, salt);
}

static inline unsigned predicted(struct scene *c, const char *text)
{
	return predicted_of(c, BASE, text, NULL);
}

#define until(cond)                                         \
	do {                                                \
		uint64_t end_ = time_mono() + 5 * NS_PER_S; \
		while (!(cond) && time_mono() < end_)       \
			usleep(2000);                       \
		assert_true(cond);                          \
	} while (0)

/* Texts of two blocks, and one byte more so that the last block counts. */
#define TEXT_A "The quick brown fox jumps over t"
#define TEXT_B "Pack my box with five dozen liqu"
#define TEXT_C "How vexingly quick daft zebras j"
#define TEXT_D "Sphinx of black quartz, judge my"

static inline void send_seq(struct scene *c, uint64_t seq, struct buf b)
{
	publish(&c->g, seq, &b);
	buf_free(&b);
}

static inline void answer_nothing(struct scene *c, uint64_t from)
{
	struct asked a = engine_asked(&c->g);

	assert_true(a.from == from);
	reply_end(&c->g, &a, true);
}

#endif
