/* SPDX-License-Identifier: Apache-2.0
 * The events thread against an engine of its own kind: a PUB and a ROUTER socket in this process, on TCP, that play
 * stories of gaps, restarts and clears. Tokens are bytes (vocab_bytes), blocks are short texts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>
#include <jansson.h>

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

static unsigned bind_any(void *sock, unsigned port, bool once)
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

static void engine_start(struct engine *g, bool replay)
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

static void engine_stop(struct engine *g)
{
	zmq_close(g->pub);
	if (g->router)
		zmq_close(g->router);
	zmq_ctx_term(g->zmq);
}

static bool readable(void *sock, int ms)
{
	zmq_pollitem_t p = { .socket = sock, .events = ZMQ_POLLIN };

	return zmq_poll(&p, 1, ms) > 0;
}

/* Until the subscription has arrived: what is published before it is lost. */
static void engine_subscribed(struct engine *g)
{
	char b[16];

	assert_true(readable(g->pub, 5000));
	assert_int_equal(zmq_recv(g->pub, b, sizeof(b), 0), 1);
	assert_int_equal(b[0], 1);
}

static void put64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(v >> (56 - 8 * i));
}

static void publish(struct engine *g, uint64_t seq, const struct buf *payload)
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

static struct asked engine_asked(struct engine *g)
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
static void reply(struct engine *g, const struct asked *a, uint64_t seq, const struct buf *payload, bool topic)
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

static void reply_end(struct engine *g, const struct asked *a, bool topic)
{
	reply(g, a, UINT64_MAX, NULL, topic);
}

/* --- payloads: [ts, [event], 0] --- */

static double stamp = 1;

static void mp_u64(struct buf *b, uint64_t v)
{
	uint8_t x[9] = { 0xcf };

	put64(x + 1, v);
	buf_put(b, x, 9);
}

static void mp_str(struct buf *b, const char *s)
{
	uint8_t x[2] = { 0xd9, (uint8_t)strlen(s) };

	buf_put(b, x, 2);
	buf_put(b, s, x[1]);
}

static void mp_head(struct buf *b, unsigned events)
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
};

static void mp_opt(struct buf *b, const char *s)
{
	if (s)
		mp_str(b, s);
	else
		buf_put(b, "\xc0", 1);
}

static struct buf stored_as(const struct what *w)
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
		mp_u64(&b, (uint8_t)w->text[i]);
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

static struct buf stored(uint64_t parent, uint64_t hash, const char *text, unsigned block, const char *salt)
{
	return stored_as(&(struct what){ .parent = parent, .hash = hash, .text = text, .block = block, .salt = salt });
}

static struct buf removed_from(uint64_t hash, const char *medium)
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

static struct buf removed(uint64_t hash)
{
	return removed_from(hash, NULL);
}

static struct buf cleared(void)
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

static void on_add(void *arg, struct pod *p)
{
	((struct scene *)arg)->p = p;
	p->holder[0] = 3;
}

static void on_remove(void *arg, struct pod *p)
{
}

static void begin(struct scene *c, bool replay)
{
	struct pod_spec spec = { .weight = 1, .ranks = 1 };

	memset(c, 0, sizeof(*c));
	engine_start(&c->g, replay);
	qsbr_init(&c->q, 1);
	c->x = index_new(&c->q, 64 << 20, 8);
	c->v = vocab_bytes();
	c->e = events_start_timed(c->x, &c->st,
				  &(struct events_timing){ .idle_ns = 300 * NS_PER_MS,
							   .total_ns = 5 * NS_PER_S,
							   .cooldown_ns = 500 * NS_PER_MS });
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

static void end(struct scene *c)
{
	events_remove(c->e, c->p);
	events_stop(c->e);
	engine_stop(&c->g);
	endpoints_free(c->table);
	vocab_unref(c->v);
	index_free(c->x);
}

static uint64_t stat(struct scene *c, enum stats_id id)
{
	return stats_sum(&c->st, 1, id);
}

/* Tokens of <text> that the pod is predicted to have, in the namespace of a model or adapter and a salt. */
static unsigned predicted_of(struct scene *c, const char *model, const char *text, const char *salt)
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

static unsigned predicted_in(struct scene *c, const char *text, const char *salt)
{
	return predicted_of(c, BASE, text, salt);
}

static unsigned predicted(struct scene *c, const char *text)
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

static void send_seq(struct scene *c, uint64_t seq, struct buf b)
{
	publish(&c->g, seq, &b);
	buf_free(&b);
}

static void answer_nothing(struct scene *c, uint64_t from)
{
	struct asked a = engine_asked(&c->g);

	assert_true(a.from == from);
	reply_end(&c->g, &a, true);
}

/* --- stories --- */

static void blocks_are_known_until_they_are_removed_or_cleared(void **state)
{
	struct scene c;

	begin(&c, false);
	until(atomic_load(&c.p->index_live));
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_B "x") == 64);
	send_seq(&c, 2, removed(21));
	until(predicted(&c, TEXT_A TEXT_B "x") == 48);
	send_seq(&c, 3, cleared());
	until(predicted(&c, TEXT_A TEXT_B "x") == 0);
	assert_int_equal(stat(&c, STATS_EVENT_BATCHES), 4);
	assert_int_equal(stat(&c, STATS_EVENT_GAP) + stat(&c, STATS_EVENT_DUP) + stat(&c, STATS_EVENT_ORPHAN), 0);
	assert_true(atomic_load(&c.p->index_live));
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void a_salted_chain_is_found_with_its_salt_only(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, "tenant-1"));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL)); /* its child does not repeat it */
	until(predicted_in(&c, TEXT_A TEXT_B "x", "tenant-1") == 64);
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 0);
	assert_int_equal(predicted_in(&c, TEXT_A TEXT_B "x", "tenant-2"), 0);
	end(&c);
}

static void media_in_mid_chain_match_nothing_behind_them(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, "picture-1"));
	send_seq(&c, 2, stored(21, 30, TEXT_C, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_STORED) == 3);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 0);
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 32);
	end(&c);
}

static void an_adapter_s_blocks_are_its_own(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0,
		 stored_as(&(struct what){ .hash = 10,
					   .text = TEXT_A,
					   .block = BLOCK,
					   .lora = "sql",
					   .lora_id = 1,
					   .salt = "sql" /* as vLLM repeats it */ }));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 20, .text = TEXT_B, .block = BLOCK, .lora_id = 2 }));
	until(predicted_of(&c, "sql", TEXT_A "x", NULL) == 32);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	until(stat(&c, STATS_EVENT_STORED) == 2);
	assert_int_equal(predicted(&c, TEXT_B "x"), 0); /* an adapter whose name nobody knows */
	end(&c);
}

static void only_full_attention_is_indexed(void **state)
{
	struct what a = { .hash = 10, .text = TEXT_A, .block = BLOCK, .kind = "full_attention", .group = 2 };
	struct what b = { .hash = 20, .text = TEXT_B, .block = BLOCK, .kind = "sliding_window", .group = 0 };
	struct what c = { .hash = 30, .text = TEXT_C, .block = BLOCK, .grouped = true, .group = 0 };
	struct what d = { .hash = 40, .text = TEXT_D, .block = BLOCK, .grouped = true, .group = 2 };
	struct scene s;

	begin(&s, false);
	send_seq(&s, 0, stored_as(&a));
	send_seq(&s, 1, stored_as(&b));
	send_seq(&s, 2, stored_as(&c)); /* kinds are told once */
	send_seq(&s, 3, stored_as(&d));
	until(predicted(&s, TEXT_A "x") == 32 && predicted(&s, TEXT_D "x") == 32);
	assert_int_equal(predicted(&s, TEXT_B "x") + predicted(&s, TEXT_C "x"), 0);
	assert_int_equal(stat(&s, STATS_EVENT_GROUP), 2);
	end(&s);
}

static void a_block_lives_while_any_tier_has_it(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 10, .location_of = 2, .medium = "CPU" }));
	/* Described ones come in no order: the child first, then one that nobody knows. */
	send_seq(&c, 2,
		 stored_as(&(struct what){
			 .parent = 10, .hash = 11, .text = &TEXT_A[BLOCK], .block = BLOCK, .medium = "DISK" }));
	send_seq(&c, 3,
		 stored_as(&(struct what){
			 .parent = 777, .hash = 778, .text = TEXT_B, .block = BLOCK, .medium = "CPU" }));
	send_seq(&c, 4, removed_from(11, "GPU"));
	send_seq(&c, 5, removed_from(10, "GPU"));
	until(stat(&c, STATS_EVENT_REMOVED) == 2);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	send_seq(&c, 6, removed_from(11, "CPU"));
	send_seq(&c, 7, removed_from(11, "DISK"));
	until(predicted(&c, TEXT_A "x") == 16);
	/* A copy of a block whose parent has gone. */
	send_seq(&c, 8, stored(0, 50, TEXT_C, BLOCK, NULL));
	send_seq(&c, 9, removed(50));
	send_seq(&c, 10,
		 stored_as(&(struct what){
			 .parent = 50, .hash = 51, .text = &TEXT_C[BLOCK], .block = BLOCK, .medium = "DISK" }));
	until(stat(&c, STATS_EVENT_BATCHES) == 11 && stat(&c, STATS_EVENT_STORED) == 5);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 1);
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void what_lies_elsewhere_is_not_this_pod_s(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0,
		 stored_as(&(struct what){ .hash = 10, .text = TEXT_A, .block = BLOCK, .medium = "SHARED_STORAGE" }));
	send_seq(&c, 1, stored_as(&(struct what){ .hash = 20, .text = TEXT_B, .block = BLOCK, .locality = "REMOTE" }));
	send_seq(&c, 2, stored_as(&(struct what){ .hash = 30, .text = TEXT_C, .block = BLOCK, .locality = "LOCAL" }));
	until(predicted(&c, TEXT_C "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A "x") + predicted(&c, TEXT_B "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_MEDIUM), 2);
	end(&c);
}

static void on_connect_the_history_is_asked_for_in_either_framing(void **state)
{
	for (int topic = 0; topic < 2; topic++) {
		struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
		struct asked a;
		struct scene c;

		begin(&c, true);
		a = engine_asked(&c.g);
		assert_true(a.from == 0);
		assert_false(atomic_load(&c.p->index_live));
		reply(&c.g, &a, 0, &b0, topic);
		reply(&c.g, &a, 1, &b1, topic);
		reply_end(&c.g, &a, topic);
		until(atomic_load(&c.p->index_live));
		assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 64);
		publish(&c.g, 1, &b1); /* overlap */
		until(stat(&c, STATS_EVENT_DUP) == 1);
		send_seq(&c, 2, removed(21));
		until(predicted(&c, TEXT_A TEXT_B "x") == 48);
		assert_int_equal(stat(&c, STATS_EVENT_REPLAY), 1);
		assert_int_equal(stat(&c, STATS_EVENT_RESTART), 0);
		buf_free(&b0);
		buf_free(&b1);
		end(&c);
	}
}

/* Frames as others have written them down. Their tokens are no bytes, so that a batch that was read is seen by that. */
static void send_vector(void *sock, const json_t *vectors, const char *name, const struct asked *to)
{
	json_t *v, *frame;
	size_t i, k;

	json_array_foreach(vectors, i, v)
	{
		json_t *frames = json_object_get(v, "frames_hex");

		if (strcmp(json_string_value(json_object_get(v, "name")), name) != 0)
			continue;
		if (to)
			zmq_send(sock, to->id, to->id_len, ZMQ_SNDMORE);
		json_array_foreach(frames, k, frame)
		{
			const char *hex = json_string_value(frame);
			uint8_t b[1024];
			size_t n = strlen(hex) / 2;

			assert_true(n <= sizeof(b));
			for (size_t j = 0; j < n; j++) {
				unsigned byte;

				assert_int_equal(sscanf(hex + 2 * j, "%2x", &byte), 1);
				b[j] = (uint8_t)byte;
			}
			zmq_send(sock, b, n, k + 1 < json_array_size(frames) ? ZMQ_SNDMORE : 0);
		}
		return;
	}
	fail_msg("no vector %s", name);
}

static void every_framing_is_understood(void **state)
{
	static const struct {
		const char *live, *reply, *end;
	} rows[] = {
		{ "live_vllm", "replay_reply_new", "replay_end_new" },
		{ "live_empty_topic", "replay_reply_old", "replay_end_old" },
		{ "live_sim_first", "replay_reply_old", "replay_end_new" },
	};
	json_t *j = json_load_file("selftests/data/zmq_frames.json", 0, NULL);
	json_t *vectors = json_object_get(j, "vectors");

	assert_non_null(j);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct asked a;
		struct scene c;

		begin(&c, true);
		answer_nothing(&c, 0);
		until(atomic_load(&c.p->index_live));
		send_vector(c.g.pub, vectors, rows[i].live, NULL);
		until(stat(&c, STATS_EVENT_TOKEN) == 1);
		end(&c);

		begin(&c, true);
		answer_nothing(&c, 0);
		send_seq(&c, 4, removed(1));
		send_seq(&c, 6, removed(2));
		a = engine_asked(&c.g); /* asserts the frames of replay_request_dealer */
		assert_true(a.from == 5);
		send_vector(c.g.router, vectors, rows[i].reply, &a);
		send_vector(c.g.router, vectors, rows[i].end, &a);
		until(stat(&c, STATS_EVENT_BATCHES) == 3 && atomic_load(&c.p->index_live));
		assert_int_equal(stat(&c, STATS_EVENT_TOKEN), 1);
		assert_int_equal(stat(&c, STATS_EVENT_BAD_FRAME), 0);
		end(&c);
	}
	json_decref(j);
}

/* K1 */
static void a_gap_is_filled_once_and_in_order(void **state)
{
	static const char *const texts[] = { TEXT_A, TEXT_B, TEXT_C, TEXT_D };
	struct buf b[8];
	struct asked a;
	struct scene c;

	/* 0 … 3 build a chain, 4 … 7 take from its end what is applied in order only. */
	for (unsigned i = 0; i < 4; i++)
		b[i] = stored(i ? 10 * i + 1 : 0, 10 * i + 10, texts[i], BLOCK, NULL);
	b[4] = removed(41);
	b[5] = stored(40, 41, &TEXT_D[BLOCK], BLOCK, NULL);
	b[6] = removed(41);
	b[7] = removed(40);
	begin(&c, true);
	answer_nothing(&c, 0);
	for (unsigned i = 0; i < 3; i++)
		publish(&c.g, i, &b[i]);
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 96);
	publish(&c.g, 6, &b[6]);
	a = engine_asked(&c.g);
	assert_true(a.from == 3);
	assert_int_equal(predicted(&c, TEXT_A TEXT_B TEXT_C "x"), 96); /* usable meanwhile */
	reply(&c.g, &a, 3, &b[3], true);
	publish(&c.g, 7, &b[7]);
	usleep(50000);
	for (unsigned i = 4; i < 7; i++)
		reply(&c.g, &a, i, &b[i], true);
	reply_end(&c.g, &a, true);
	publish(&c.g, 5, &b[5]);
	publish(&c.g, 6, &b[6]);
	until(stat(&c, STATS_EVENT_DUP) == 3); /* 6 was held and replayed; 5 and 6 again */
	assert_int_equal(predicted(&c, TEXT_A TEXT_B TEXT_C TEXT_D "x"), 96);
	assert_int_equal(stat(&c, STATS_EVENT_BATCHES), 8);
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART) + stat(&c, STATS_EVENT_ORPHAN), 0);
	assert_true(atomic_load(&c.p->index_live));
	send_seq(&c, 8, removed(31)); /* the cursor is at 7 */
	until(predicted(&c, TEXT_A TEXT_B TEXT_C "x") == 80);
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	for (unsigned i = 0; i < 8; i++)
		buf_free(&b[i]);
	end(&c);
}

/* K1, second half */
static void history_that_is_gone_leaves_the_pod_stale_and_is_not_asked_for_again(void **state)
{
	struct buf b5 = removed(99), b6 = stored(0, 50, TEXT_D, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	publish(&c.g, 6, &b6);
	a = engine_asked(&c.g);
	assert_true(a.from == 1);
	reply(&c.g, &a, 5, &b5, true);
	reply(&c.g, &a, 6, &b6, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_D "x") == 32 && stat(&c, STATS_EVENT_REPLAY_FAIL) == 1);
	assert_true(atomic_load(&c.p->index_stale));
	assert_false(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	send_seq(&c, 7, removed(51));
	until(predicted(&c, TEXT_D "x") == 16);
	assert_false(readable(c.g.router, 700)); /* longer than the cool-down */
	send_seq(&c, 8, cleared());
	until(!atomic_load(&c.p->index_stale) && atomic_load(&c.p->index_live));
	buf_free(&b5);
	buf_free(&b6);
	end(&c);
}

static void a_gap_that_nobody_can_fill_is_asked_for_once(void **state)
{
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 6, stored(0, 20, TEXT_B, BLOCK, NULL));
	answer_nothing(&c, 1);
	until(predicted(&c, TEXT_B "x") == 32);
	assert_true(atomic_load(&c.p->index_stale));
	assert_false(readable(c.g.router, 300));
	assert_int_equal(stat(&c, STATS_EVENT_GAP), 1);
	end(&c);
}

static void a_replay_that_is_silent_is_given_up_and_tried_after_a_pause(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	engine_asked(&c.g);
	publish(&c.g, 0, &b0); /* held */
	until(stat(&c, STATS_EVENT_REPLAY_FAIL) == 1 && predicted(&c, TEXT_A "x") == 32);
	assert_true(atomic_load(&c.p->index_live));
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	reply(&c.g, &a, 0, &b0, false);
	reply_end(&c.g, &a, false);
	until(stat(&c, STATS_EVENT_REPLAY) == 1 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	buf_free(&b0);
	end(&c);
}

/* K2 */
static void a_restart_is_seen_without_a_replay_socket(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	send_seq(&c, 1, removed(99));
	send_seq(&c, 2, removed(98));
	until(predicted(&c, TEXT_A "x") == 32 && stat(&c, STATS_EVENT_BATCHES) == 3);
	send_seq(&c, 0, stored(0, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_B "x") == 32);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 1);
	assert_false(atomic_load(&c.p->index_stale));
	end(&c);
}

static void restart_engine(struct scene *c, bool replay)
{
	engine_stop(&c->g);
	until(!atomic_load(&c->p->index_live));
	engine_start(&c->g, replay);
	engine_subscribed(&c->g);
}

/* K2, variant */
static void a_restart_behind_a_reconnect_is_not_trusted(void **state)
{
	struct scene c;

	begin(&c, false);
	for (uint64_t i = 0; i < 3; i++)
		send_seq(&c, i, stored(i ? 10 * i + 1 : 0, 10 * i + 10, i ? TEXT_B : TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_BATCHES) == 3 && predicted(&c, TEXT_A "x") == 32);
	restart_engine(&c, false);
	until(atomic_load(&c.p->index_stale));
	send_seq(&c, 7, stored(0, 60, TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_C "x") == 32);
	assert_true(atomic_load(&c.p->index_stale));	      /* may still be the same with a gap */
	send_seq(&c, 8, stored(77, 80, TEXT_D, BLOCK, NULL)); /* unknown parent */
	until(stat(&c, STATS_EVENT_RESTART) == 1);
	until(!atomic_load(&c.p->index_stale));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	end(&c);
}

static void a_mere_reconnect_keeps_what_was_known(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	restart_engine(&c, false);
	until(atomic_load(&c.p->index_stale));
	send_seq(&c, 1, stored(11, 20, TEXT_B, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_B "x") == 64);
	until(atomic_load(&c.p->index_live) && !atomic_load(&c.p->index_stale));
	assert_int_equal(stat(&c, STATS_EVENT_RESTART) + stat(&c, STATS_EVENT_GAP), 0);
	end(&c);
}

static void with_replay_a_reconnect_asks_for_the_last_batch_to_tell_who_it_is(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
	struct buf other = stored(0, 90, TEXT_C, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);

	/* The same engine: one batch was missed. */
	restart_engine(&c, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &b0, true);
	reply(&c.g, &a, 1, &b1, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_A TEXT_B "x") == 64 && atomic_load(&c.p->index_live));
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 0);

	/* Another: it has nothing from there on. */
	restart_engine(&c, true);
	answer_nothing(&c, 1);
	answer_nothing(&c, 0);
	until(stat(&c, STATS_EVENT_RESTART) == 1 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);

	/* Another: its batch of that number is not the one that we saw. */
	restart_engine(&c, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &other, true);
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &other, true);
	reply_end(&c.g, &a, true);
	until(predicted(&c, TEXT_C "x") == 32 && atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	assert_int_equal(stat(&c, STATS_EVENT_RESTART), 2);
	buf_free(&b0);
	buf_free(&b1);
	buf_free(&other);
	end(&c);
}

/* K3 */
static void a_clear_that_comes_late_takes_nothing_that_was_stored_after_it(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	events_invalidate(c.e, c.p, "asleep");
	until(predicted(&c, TEXT_A "x") == 0);
	send_seq(&c, 1, cleared());
	send_seq(&c, 2, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(stat(&c, STATS_EVENT_BATCHES) == 3);
	assert_int_equal(predicted(&c, TEXT_A "x"), 32);
	assert_true(atomic_load(&c.p->index_live));
	end(&c);
}

/* K3: the gateway starts while the engine sleeps; its history is of before. */
static void a_replay_that_was_overtaken_by_a_clear_leaves_nothing(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL), b1 = stored(11, 20, TEXT_B, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	a = engine_asked(&c.g);
	reply(&c.g, &a, 0, &b0, true);
	until(predicted(&c, TEXT_A "x") == 32);
	events_invalidate(c.e, c.p, "asleep");
	until(predicted(&c, TEXT_A "x") == 0);
	reply(&c.g, &a, 1, &b1, true);
	reply(&c.g, &a, 2, &b0, true);
	reply_end(&c.g, &a, true);
	until(atomic_load(&c.p->index_live));
	assert_int_equal(predicted(&c, TEXT_A TEXT_B "x"), 0);
	send_seq(&c, 3, stored(0, 10, TEXT_A, BLOCK, NULL)); /* awake again */
	until(predicted(&c, TEXT_A "x") == 32);
	buf_free(&b0);
	buf_free(&b1);
	end(&c);
}

/* K4 */
static void blocks_of_one_token_count_exactly(void **state)
{
	static char text[302];
	struct scene c;

	for (unsigned i = 0; i < 300; i++)
		text[i] = (char)('a' + i % 23);
	begin(&c, false);
	for (unsigned i = 0; i < 300; i++) {
		char one[2] = { text[i], 0 };

		send_seq(&c, i, stored(i ? 1000 + i - 1 : 0, 1000 + i, one, 1, NULL));
	}
	until(stat(&c, STATS_EVENT_STORED) == 300);
	until(predicted(&c, text) == 299);
	send_seq(&c, 300, removed(1000 + 149));
	until(predicted(&c, text) == 149);
	end(&c);
}

static void what_is_broken_is_counted_and_the_rest_goes_on(void **state)
{
	struct buf junk = { 0 };
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	buf_puts(&junk, "\xc1junk");
	publish(&c.g, 1, &junk);
	zmq_send(c.g.pub, "two", 3, ZMQ_SNDMORE);
	zmq_send(c.g.pub, "frames", 6, 0);
	send_seq(&c, 2, stored(777, 20, TEXT_B, BLOCK, NULL));
	send_seq(&c, 3, stored(11, 30, TEXT_C, BLOCK, NULL));
	until(predicted(&c, TEXT_A TEXT_C "x") == 64);
	assert_int_equal(stat(&c, STATS_EVENT_BAD_BATCH), 1);
	assert_int_equal(stat(&c, STATS_EVENT_BAD_FRAME), 1);
	assert_int_equal(stat(&c, STATS_EVENT_ORPHAN), 1);
	assert_true(atomic_load(&c.p->index_live));
	buf_free(&junk);
	end(&c);
}

static void a_new_base_name_moves_the_pod_to_its_namespace(void **state)
{
	struct buf b0 = stored(0, 10, TEXT_A, BLOCK, NULL);
	struct asked a;
	struct scene c;

	begin(&c, true);
	answer_nothing(&c, 0);
	publish(&c.g, 0, &b0);
	until(predicted(&c, TEXT_A "x") == 32);
	events_rebase(c.e, c.p, BASE); /* the same: nothing */
	events_rebase(c.e, c.p, "other");
	a = engine_asked(&c.g);
	assert_true(a.from == 0);
	reply(&c.g, &a, 0, &b0, true);
	reply_end(&c.g, &a, true);
	until(stat(&c, STATS_EVENT_REPLAY) == 2);
	assert_int_equal(predicted(&c, TEXT_A "x"), 0);
	buf_free(&b0);
	end(&c);
}

static void a_guess_is_seen_and_can_be_taken_back(void **state)
{
	static char text[INDEX_CHUNK * 4 + 1];
	struct str parts[1] = { STR(BASE) };
	struct events_guess g = { .holder = 3, .tokens_per_chunk_q8 = 16 << 8 };
	struct index_text t;
	struct scene c;

	memset(text, 'q', sizeof(text) - 1);
	begin(&c, false);
	for (int drop = 0; drop < 2; drop++) {
		g.at = malloc(8 * sizeof(*g.at));
		index_text_init(&t, g.at, 8);
		assert_int_equal(index_text_feed(c.x, &t, text, strlen(text)), 0);
		g.n = t.n;
		g.ns = index_namespace(c.x, parts, 1);
		g.until_ns = time_mono() + 60 * NS_PER_S;
		g.drop = drop;
		assert_int_equal(events_guess(c.e, &g), 0);
		until(drop ? predicted(&c, text) == 0 : predicted(&c, text) > 0);
	}
	end(&c);
}

/* What a request extends is not said again: the hashes begin at <from>. */
static void a_guess_may_continue_an_earlier_one(void **state)
{
	static char text[INDEX_CHUNK * 8 + 1];
	struct str parts[1] = { STR(BASE) };
	struct events_guess g = { .holder = 3, .tokens_per_chunk_q8 = 16 << 8 };
	unsigned long before = 0;
	struct index_text t;
	uint64_t at[9];
	struct scene c;

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		text[i] = (char)('a' + i / INDEX_CHUNK);
	begin(&c, false);
	index_text_init(&t, at, 9);
	assert_int_equal(index_text_feed(c.x, &t, text, strlen(text)), 0);
	g.ns = index_namespace(c.x, parts, 1);
	g.until_ns = time_mono() + 60 * NS_PER_S;
	for (unsigned from = 0; from < 8; from += 4) {
		g.from = from;
		g.n = from + 4;
		g.at = malloc(4 * sizeof(*g.at));
		memcpy(g.at, at + from, 4 * sizeof(*g.at));
		assert_int_equal(events_guess(c.e, &g), 0);
		until(predicted(&c, text) > before);
		before = predicted(&c, text);
	}
	end(&c);
}

static void a_pod_that_goes_leaves_nothing(void **state)
{
	struct scene c;

	begin(&c, false);
	send_seq(&c, 0, stored(0, 10, TEXT_A, BLOCK, NULL));
	until(predicted(&c, TEXT_A "x") == 32);
	events_remove(c.e, c.p);
	until(predicted(&c, TEXT_A "x") == 0);
	end(&c);
}

static void a_pod_is_live_when_all_of_its_ranks_are(void **state)
{
	struct pod_spec spec = { .weight = 1, .ranks = 2 };
	struct engine second = { .once = true };
	struct scene c;
	struct pod *p;

	/* A port whose next one is free. */
	for (int i = 0;; i++) {
		begin(&c, false);
		second.pub_port = c.g.pub_port + 1;
		engine_start(&second, false);
		if (second.pub_port)
			break;
		assert_true(i < 20);
		engine_stop(&second);
		end(&c);
	}
	p = c.p;
	net_addr_parse(STR("127.0.0.1:8001"), &spec.addr);
	snprintf(spec.events, sizeof(spec.events), "tcp://127.0.0.1:%u", c.g.pub_port);
	assert_int_equal(endpoints_set(c.table, 0, "second", &spec, 1), 1);
	assert_true(c.p != p);
	c.p->holder[0] = 4;
	c.p->holder[1] = 5;
	events_add(c.e, c.p, c.v, BASE);
	engine_subscribed(&second);
	until(atomic_load(&c.p->index_live));
	engine_stop(&second);
	until(!atomic_load(&c.p->index_live));
	assert_true(atomic_load(&p->index_live));
	events_remove(c.e, p);
	end(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_known_until_they_are_removed_or_cleared),
		cmocka_unit_test(a_salted_chain_is_found_with_its_salt_only),
		cmocka_unit_test(media_in_mid_chain_match_nothing_behind_them),
		cmocka_unit_test(an_adapter_s_blocks_are_its_own),
		cmocka_unit_test(only_full_attention_is_indexed),
		cmocka_unit_test(a_block_lives_while_any_tier_has_it),
		cmocka_unit_test(what_lies_elsewhere_is_not_this_pod_s),
		cmocka_unit_test(on_connect_the_history_is_asked_for_in_either_framing),
		cmocka_unit_test(every_framing_is_understood),
		cmocka_unit_test(a_gap_is_filled_once_and_in_order),
		cmocka_unit_test(history_that_is_gone_leaves_the_pod_stale_and_is_not_asked_for_again),
		cmocka_unit_test(a_gap_that_nobody_can_fill_is_asked_for_once),
		cmocka_unit_test(a_replay_that_is_silent_is_given_up_and_tried_after_a_pause),
		cmocka_unit_test(a_restart_is_seen_without_a_replay_socket),
		cmocka_unit_test(a_restart_behind_a_reconnect_is_not_trusted),
		cmocka_unit_test(a_mere_reconnect_keeps_what_was_known),
		cmocka_unit_test(with_replay_a_reconnect_asks_for_the_last_batch_to_tell_who_it_is),
		cmocka_unit_test(a_clear_that_comes_late_takes_nothing_that_was_stored_after_it),
		cmocka_unit_test(a_replay_that_was_overtaken_by_a_clear_leaves_nothing),
		cmocka_unit_test(blocks_of_one_token_count_exactly),
		cmocka_unit_test(what_is_broken_is_counted_and_the_rest_goes_on),
		cmocka_unit_test(a_new_base_name_moves_the_pod_to_its_namespace),
		cmocka_unit_test(a_guess_is_seen_and_can_be_taken_back),
		cmocka_unit_test(a_guess_may_continue_an_earlier_one),
		cmocka_unit_test(a_pod_that_goes_leaves_nothing),
		cmocka_unit_test(a_pod_is_live_when_all_of_its_ranks_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
