/* SPDX-License-Identifier: Apache-2.0
 * kvsim's engine against published vLLM hashes and a recorded vLLM run, and its scheduling as stories. The tool's
 * sources are compiled in: they are no part of the library.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"

#include "../../tools/sim/blockhash.c"
#include "../../tools/sim/cache.c"
#include "../../tools/sim/engine.c"
#include "base/sha256.c"

#define MS 1000000.0

static json_t *data(const char *name)
{
	char path[256];
	json_error_t err;
	json_t *j;

	snprintf(path, sizeof(path), "selftests/data/sim/%s", name);
	j = json_load_file(path, 0, &err);
	if (!j)
		fail_msg("%s: %s", path, err.text);
	return j;
}

static uint32_t *tokens_of(const json_t *a, size_t n)
{
	uint32_t *t = calloc(n, sizeof(*t));

	for (size_t i = 0; i < n; i++)
		t[i] = i < json_array_size(a) ? (uint32_t)json_integer_value(json_array_get(a, i)) : 1;
	return t;
}

static void hex(const uint8_t *p, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++)
		snprintf(out + 2 * i, 3, "%02x", p[i]);
}

static void sha256_is_the_standard_s(void **state)
{
	static const struct {
		const char *text;
		unsigned times;
		const char *want;
	} rows[] = {
		{ "", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
		{ "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
		  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
		{ "aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct sha256 s;
		uint8_t out[32];
		char text[65];

		sha256_init(&s);
		for (unsigned k = 0; k < rows[i].times; k++)
			sha256_update(&s, rows[i].text, strlen(rows[i].text));
		sha256_final(&s, out);
		hex(out, 32, text);
		assert_string_equal(text, rows[i].want);
	}
}

static void sha256_without_the_cpu_s_help_is_the_same(void **state)
{
	uint8_t p[64 * 5];
	uint32_t a[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, b[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	for (size_t i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)(i * 7);
	blocks(a, p, 5);
	blocks_plain(b, p, 5);
	assert_memory_equal(a, b, sizeof(a));
}

static void block_hashes_are_vllm_s(void **state)
{
	json_t *j = data("block_hashes.json"), *chain;
	size_t i, k;

	json_array_foreach(json_object_get(j, "chains"), i, chain)
	{
		const json_t *seq = json_object_get(json_object_get(j, "sequences"),
						    json_string_value(json_object_get(chain, "tokens")));
		uint32_t bs = (uint32_t)json_integer_value(json_object_get(chain, "block_size"));
		uint32_t *t = tokens_of(seq, json_array_size(seq));
		struct str salt = str_of(json_string_value(json_object_get(chain, "salt")));
		struct blockhash_extra x = {
			.tagged = json_is_true(json_object_get(chain, "tagged")),
			.lora = str_of(json_string_value(json_object_get(chain, "lora"))),
			.lora_path = STR("/adapters/sql-lora"),
		};
		struct digest d;
		char text[65];
		json_t *want;

		blockhash_none(str_of(json_string_value(json_object_get(chain, "seed"))), &d);
		hex(d.b, 32, text);
		assert_string_equal(text, json_string_value(json_object_get(chain, "none")));
		json_array_foreach(json_object_get(chain, "blocks"), k, want)
		{
			x.salt = k ? (struct str){ 0 } : salt;
			blockhash(&d, t + k * bs, bs, &x, &d);
			hex(d.b, 32, text);
			assert_string_equal(text, json_string_value(want));
		}
		free(t);
	}
	json_decref(j);
}

/* --- a rig: an engine whose events become text, one line per step --- */

struct rig {
	struct engine e;
	struct kv_sink sink;
	struct buf log; /* of this step */
	struct buf all;
	const uint32_t *out; /* the tokens to make, NULL: always 1 */
	unsigned tokens, done;
	uint64_t now;
	bool hashes; /* else only counts */
};

static struct rig *rig_of_sink(struct kv_sink *s)
{
	return container_of(s, struct rig, sink);
}

static void on_stored(struct kv_sink *s, const struct kv_stored *ev)
{
	struct rig *r = rig_of_sink(s);

	if (!r->hashes) {
		buf_printf(&r->log, "+%u ", ev->n);
		return;
	}
	buf_printf(&r->log, "+%016lx:", ev->parent ? digest_id(ev->parent) : 0);
	for (uint32_t i = 0; i < ev->n; i++)
		buf_printf(&r->log, "%016lx,", digest_id(&ev->hashes[i]));
	buf_printf(&r->log, "%u,%u,%.*s ", ev->tokens[0], ev->tokens[ev->n * r->e.lim.block_size - 1], (int)ev->salt.n,
		   ev->salt.n ? ev->salt.p : "");
}

static void on_copied(struct kv_sink *s, const struct digest *d)
{
	buf_puts(&rig_of_sink(s)->log, "v ");
}

static void on_removed(struct kv_sink *s, const struct digest *d, bool below)
{
	struct rig *r = rig_of_sink(s);

	if (r->hashes)
		buf_printf(&r->log, "-%016lx ", digest_id(d));
	else
		buf_puts(&r->log, below ? "-v " : "- ");
}

static void on_cleared(struct kv_sink *s)
{
	buf_puts(&rig_of_sink(s)->log, "0 ");
}

static void on_step(struct engine *e)
{
	struct rig *r = container_of(e, struct rig, e);

	if (!buf_len(&r->log))
		return;
	buf_printf(&r->all, "%.*s\n", (int)buf_len(&r->log) - 1, buf_data(&r->log));
	buf_consume(&r->log, buf_len(&r->log));
}

struct job {
	struct seq s;
	uint32_t left;
	enum finish why;
	unsigned order;
};

static enum finish on_token(struct engine *e, struct seq *s)
{
	struct rig *r = container_of(e, struct rig, e);
	struct job *j = container_of(s, struct job, s);

	seq_push(s, r->out ? r->out[s->ntokens - s->nprompt] : 1);
	r->tokens++;
	return --j->left ? FINISH_NONE : FINISH_LENGTH;
}

static void on_done(struct engine *e, struct seq *s, enum finish why)
{
	struct job *j = container_of(s, struct job, s);

	j->why = why;
	j->order = ++container_of(e, struct rig, e)->done;
}

static const struct engine_ops rig_ops = { on_token, on_done, on_step };

static void rig_init(struct rig *r, uint32_t blocks, uint32_t bs, uint32_t seqs, const struct engine_cost *cost)
{
	struct engine_limits lim = {
		.block_size = bs, .max_num_seqs = seqs, .max_batched_tokens = 64, .max_waiting = 8, .max_loras = 1
	};
	struct engine_cost zero = { .load_factor = 1 };

	*r = (struct rig){ .sink = { on_stored, on_copied, on_removed, on_cleared }, .now = 1 };
	assert_int_equal(
		engine_init(&r->e, &lim, cost ? cost : &zero, &rig_ops, blocks, true, STR(BLOCKHASH_SEED), 1, &r->sink),
		0);
}

static void rig_free(struct rig *r)
{
	engine_free(&r->e);
	buf_free(&r->log);
	buf_free(&r->all);
}

static void job_init(struct job *j, const uint32_t *t, uint32_t n, uint32_t out)
{
	*j = (struct job){ .left = out };
	assert_int_equal(seq_init(&j->s, t, n), 0);
}

/* One step; false: idle. */
static bool rig_step(struct rig *r)
{
	uint64_t len = engine_begin(&r->e, r->now);

	if (len == ENGINE_IDLE)
		return false;
	r->now += len;
	engine_end(&r->e, r->now);
	return true;
}

static const char *rig_run(struct rig *r)
{
	while (rig_step(r))
		;
	buf_put(&r->all, "", 1);
	return buf_data(&r->all);
}

/* The recorded batches as the rig writes them. */
static void recorded(const json_t *doc, struct buf *out)
{
	json_t *batch, *ev, *h;
	size_t b, i, k;

	json_array_foreach(json_object_get(doc, "batches"), b, batch)
	{
		json_array_foreach(batch, i, ev)
		{
			const char *type = json_string_value(json_object_get(ev, "type"));
			const json_t *t = json_object_get(ev, "tokens");
			const char *parent = json_string_value(json_object_get(ev, "parent"));
			const char *salt = json_string_value(json_object_get(ev, "salt"));

			if (i)
				buf_puts(out, " ");
			if (!strcmp(type, "AllBlocksCleared")) {
				buf_puts(out, "0");
				continue;
			}
			if (!strcmp(type, "BlockStored"))
				buf_printf(out, "+%s:", parent ? parent : "0000000000000000");
			json_array_foreach(json_object_get(ev, "hashes"), k, h)
				buf_printf(out, "%s%s%s", t ? "" : "-", json_string_value(h), t ? "," : "");
			if (t)
				buf_printf(out, "%d,%d,%s", (int)json_integer_value(json_array_get(t, 0)),
					   (int)json_integer_value(json_array_get(t, json_array_size(t) - 1)),
					   salt ? salt : "");
		}
		buf_puts(out, "\n");
	}
	buf_put(out, "", 1);
}

static void events_of_a_recorded_vllm_run_are_made_in_the_same_order(void **state)
{
	json_t *doc = data("vllm_run.json"), *prompts = json_object_get(doc, "prompts"), *step;
	const json_t *b_out = json_object_get(prompts, "b_out");
	uint32_t *out = tokens_of(b_out, 512);
	struct buf want = { 0 };
	struct rig r;
	size_t i;

	rig_init(&r, (uint32_t)json_integer_value(json_object_get(doc, "usable_blocks")),
		 (uint32_t)json_integer_value(json_object_get(doc, "block_size")), 8, NULL);
	r.hashes = true;
	r.out = out;
	json_array_foreach(json_object_get(doc, "steps"), i, step)
	{
		size_t n = (size_t)json_integer_value(json_object_get(step, "length"));
		const char *name = json_string_value(json_object_get(step, "prompt"));
		uint32_t *t = tokens_of(json_object_get(prompts, name), n);
		struct job j;

		if (json_is_true(json_object_get(step, "reset")))
			assert_int_equal(cache_reset(&r.e.cache), 0);
		job_init(&j, t, (uint32_t)n, (uint32_t)json_integer_value(json_object_get(step, "out")));
		j.s.salt = str_of(json_string_value(json_object_get(step, "salt")));
		assert_int_equal(engine_submit(&r.e, &j.s, r.now), 0);
		while (rig_step(&r))
			;
		assert_int_equal(j.why, FINISH_LENGTH);
		seq_free(&j.s);
		free(t);
	}
	recorded(doc, &want);
	buf_put(&r.all, "", 1);
	assert_string_equal(buf_data(&r.all), buf_data(&want));
	buf_free(&want);
	rig_free(&r);
	free(out);
	json_decref(doc);
}

static void the_last_token_is_always_computed(void **state)
{
	static const struct {
		uint32_t len, cached;
	} rows[] = { { 15, 0 }, { 16, 0 }, { 17, 16 }, { 32, 16 }, { 33, 32 }, { 48, 32 } };
	uint32_t t[48];

	for (uint32_t i = 0; i < 48; i++)
		t[i] = i;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct job a, b;
		struct rig r;

		rig_init(&r, 64, 16, 4, NULL);
		job_init(&a, t, rows[i].len, 1);
		job_init(&b, t, rows[i].len, 1);
		engine_submit(&r.e, &a.s, 1);
		while (rig_step(&r))
			;
		engine_submit(&r.e, &b.s, 1);
		while (rig_step(&r))
			;
		assert_int_equal(b.s.cached, rows[i].cached);
		assert_int_equal(r.e.stats.queries, 2 * rows[i].len);
		assert_int_equal(r.e.stats.hits, rows[i].cached);
		seq_free(&a.s);
		seq_free(&b.s);
		rig_free(&r);
	}
}

static void a_salt_and_an_adapter_part_equal_prompts(void **state)
{
	static const struct {
		const char *lora, *salt;
		uint32_t cached;
	} rows[] = { { NULL, NULL, 0 }, { NULL, "x", 0 }, { "l", NULL, 0 }, { "l", "x", 0 }, { NULL, "x", 32 } };
	uint32_t t[40] = { 9 };
	struct rig r;

	rig_init(&r, 64, 16, 4, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct job j;

		job_init(&j, t, 40, 1);
		j.s.lora = str_of(rows[i].lora);
		j.s.salt = str_of(rows[i].salt);
		engine_submit(&r.e, &j.s, 1);
		while (rig_step(&r))
			;
		assert_int_equal(j.s.cached, rows[i].cached);
		seq_free(&j.s);
	}
	rig_free(&r);
}

static void a_second_copy_of_a_block_is_announced_and_removed_by_itself(void **state)
{
	uint32_t t[16] = { 1 }, u[32] = { 2 };
	struct job a, b, c;
	struct rig r;

	rig_init(&r, 2, 16, 4, NULL);
	job_init(&a, t, 16, 1);
	job_init(&b, t, 16, 1);
	job_init(&c, u, 32, 1);
	engine_submit(&r.e, &a.s, 1);
	while (rig_step(&r))
		;
	engine_submit(&r.e, &b.s, 1);
	while (rig_step(&r))
		;
	engine_submit(&r.e, &c.s, 1);
	assert_string_equal(rig_run(&r), "+1\n+1\n- - +2\n");
	seq_free(&a.s);
	seq_free(&b.s);
	seq_free(&c.s);
	rig_free(&r);
}

static void what_does_not_fit_waits_its_turn(void **state)
{
	uint32_t t[3][16] = { { 1 }, { 2 }, { 3 } };
	struct job j[3];
	struct rig r;

	rig_init(&r, 64, 16, 1, NULL);
	for (int i = 0; i < 3; i++) {
		job_init(&j[i], t[i], 16, 2);
		engine_submit(&r.e, &j[i].s, 1);
	}
	assert_int_equal(r.e.nwaiting, 3);
	engine_begin(&r.e, 1);
	assert_int_equal(r.e.nrunning, 1);
	assert_int_equal(r.e.nwaiting, 2);
	engine_end(&r.e, 1);
	rig_run(&r);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(j[i].order, i + 1);
		seq_free(&j[i].s);
	}
	assert_int_equal(r.e.cache.nfree, 64);
	rig_free(&r);
}

static void a_full_queue_refuses(void **state)
{
	uint32_t t[4] = { 1 };
	struct job j[9];
	struct rig r;

	rig_init(&r, 64, 16, 1, NULL);
	for (int i = 0; i < 9; i++) {
		job_init(&j[i], t, 4, 1);
		assert_int_equal(engine_submit(&r.e, &j[i].s, 1), i < 8 ? 0 : -EBUSY);
	}
	for (int i = 0; i < 9; i++) {
		engine_abort(&r.e, &j[i].s, 1);
		seq_free(&j[i].s);
	}
	assert_int_equal(r.e.stats.finished[FINISH_ABORT], 8);
	rig_free(&r);
}

static void without_free_blocks_the_youngest_is_put_back_and_loses_no_token(void **state)
{
	uint32_t t[2][16] = { { 1 }, { 2 } };
	struct job j[2];
	struct rig r;

	rig_init(&r, 4, 16, 4, NULL);
	for (int i = 0; i < 2; i++) {
		job_init(&j[i], t[i], 16, 40);
		engine_submit(&r.e, &j[i].s, 1);
	}
	rig_run(&r);
	assert_true(r.e.stats.preemptions > 0);
	assert_int_equal(r.tokens, 80);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(j[i].order, i + 1);
		assert_int_equal(j[i].s.ntokens, 56);
		seq_free(&j[i].s);
	}
	assert_int_equal(r.e.cache.nfree, 4);
	rig_free(&r);
}

static void an_adapter_waits_while_as_many_as_allowed_run(void **state)
{
	uint32_t t[4] = { 1 };
	static const char *const names[] = { "x", "y", "x", NULL };
	static const bool runs[] = { true, false, true, true };
	struct job j[4];
	struct rig r;

	rig_init(&r, 64, 16, 8, NULL);
	for (int i = 0; i < 4; i++) {
		job_init(&j[i], t, 4, 2);
		j[i].s.lora = str_of(names[i]);
		engine_submit(&r.e, &j[i].s, 1);
	}
	engine_begin(&r.e, 1);
	for (int i = 0; i < 4; i++)
		assert_int_equal(j[i].s.running, runs[i]);
	engine_end(&r.e, 1);
	rig_run(&r);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(j[i].why, FINISH_LENGTH);
		seq_free(&j[i].s);
	}
	rig_free(&r);
}

static void a_step_costs_its_decodes_and_its_chunk(void **state)
{
	struct engine_cost cost = { .itl = 10 * MS, .per_token = 0.1 * MS, .overhead = 1 * MS, .load_factor = 1 };
	uint32_t t[100] = { 1 };
	struct job a, b;
	struct rig r;

	rig_init(&r, 64, 16, 8, &cost); /* 64 tokens a step */
	job_init(&a, t, 32, 10);
	engine_submit(&r.e, &a.s, r.now);
	assert_int_equal(engine_begin(&r.e, r.now), 4200000); /* 1 + 32 × 0.1 ms */
	engine_end(&r.e, r.now);
	assert_int_equal(r.tokens, 1);
	t[0] = 2;
	job_init(&b, t, 100, 10);
	engine_submit(&r.e, &b.s, r.now);
	assert_int_equal(engine_begin(&r.e, r.now), 17300000); /* decode, 63 tokens of b, its overhead */
	engine_end(&r.e, r.now);
	assert_int_equal(r.tokens, 2);
	assert_int_equal(engine_begin(&r.e, r.now), 13700000); /* decode, 37 tokens of b */
	engine_end(&r.e, r.now);
	assert_int_equal(r.tokens, 4);
	assert_int_equal(engine_begin(&r.e, r.now), 10000000); /* two decodes */
	engine_end(&r.e, r.now);
	assert_string_equal(rig_run(&r), "+2\n+3\n+3\n"); /* b's first chunk ends inside a block */
	seq_free(&a.s);
	seq_free(&b.s);
	rig_free(&r);
}

static void load_stretches_a_step(void **state)
{
	struct engine_cost cost = { .itl = 10 * MS, .load_factor = 3 };
	uint32_t t[4] = { 1 };
	struct job j[5];
	struct rig r;

	rig_init(&r, 64, 16, 5, &cost);
	for (int i = 0; i < 5; i++) {
		job_init(&j[i], t, 4, i < 3 ? 2 : 3);
		engine_submit(&r.e, &j[i].s, 1);
	}
	engine_begin(&r.e, 1);
	engine_end(&r.e, 1);
	assert_int_equal(engine_begin(&r.e, 1), 30000000); /* all five: × 3 */
	engine_end(&r.e, 1);
	assert_int_equal(engine_begin(&r.e, 1), 15000000); /* two: × (1 + 2 × 1/4) */
	engine_end(&r.e, 1);
	for (int i = 0; i < 5; i++)
		seq_free(&j[i].s);
	rig_free(&r);
}

static void a_fixed_time_to_first_token_holds_nobody_else_up(void **state)
{
	struct engine_cost cost = { .ttft = 100 * MS, .itl = 10 * MS, .load_factor = 1 };
	uint32_t t[4] = { 1 };
	struct job a, b;
	struct rig r;

	rig_init(&r, 64, 16, 8, &cost);
	job_init(&a, t, 4, 2);
	job_init(&b, t, 4, 2);
	engine_submit(&r.e, &a.s, 1);
	assert_int_equal(engine_begin(&r.e, 1), 100000000);
	assert_true(r.e.only_waits);
	/* b comes after 30 ms: the step is cut short, both wait their own time */
	engine_submit(&r.e, &b.s, 30000001);
	engine_end(&r.e, 30000001);
	assert_int_equal(engine_begin(&r.e, 30000001), 70000000);
	engine_end(&r.e, 100000001);
	assert_int_equal(r.tokens, 1);
	r.now = 100000001;
	rig_run(&r);
	assert_int_equal(r.tokens, 4);
	assert_in_range(b.s.t_first, 130000001, 140000001);
	seq_free(&a.s);
	seq_free(&b.s);
	rig_free(&r);
}

static void a_remote_prompt_is_stored_when_it_has_come(void **state)
{
	struct engine_cost cost = {
		.transfer = 5 * MS, .transfer_per_token = 1 * MS, .per_token = 9 * MS, .load_factor = 1
	};
	uint32_t t[35] = { 1 };
	struct job a;
	struct rig r;

	rig_init(&r, 64, 16, 8, &cost);
	job_init(&a, t, 35, 1);
	a.s.remote = true;
	engine_submit(&r.e, &a.s, 1);
	assert_int_equal(engine_begin(&r.e, 1), 40000000);
	assert_int_equal(buf_len(&r.all) + buf_len(&r.log), 0);
	engine_end(&r.e, 40000001);
	assert_int_equal(r.tokens, 1);
	assert_string_equal(rig_run(&r), "+2\n");
	seq_free(&a.s);
	rig_free(&r);
}

static void a_cache_in_use_is_not_reset_and_a_reset_is_told_with_the_next_step(void **state)
{
	uint32_t t[20] = { 1 };
	struct job a, b;
	struct rig r;

	rig_init(&r, 64, 16, 8, NULL);
	job_init(&b, t, 20, 1);
	job_init(&a, t, 20, 3);
	engine_submit(&r.e, &a.s, 1);
	rig_step(&r);
	assert_int_equal(cache_reset(&r.e.cache), -EBUSY);
	engine_abort(&r.e, &a.s, 1);
	assert_int_equal(cache_reset(&r.e.cache), 0);
	assert_false(rig_step(&r));
	assert_int_equal(buf_len(&r.all), 3);
	engine_submit(&r.e, &b.s, 1);
	assert_string_equal(rig_run(&r), "+1\n0 +1\n");
	seq_free(&a.s);
	seq_free(&b.s);
	rig_free(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_is_the_standard_s),
		cmocka_unit_test(sha256_without_the_cpu_s_help_is_the_same),
		cmocka_unit_test(block_hashes_are_vllm_s),
		cmocka_unit_test(events_of_a_recorded_vllm_run_are_made_in_the_same_order),
		cmocka_unit_test(the_last_token_is_always_computed),
		cmocka_unit_test(a_salt_and_an_adapter_part_equal_prompts),
		cmocka_unit_test(a_second_copy_of_a_block_is_announced_and_removed_by_itself),
		cmocka_unit_test(what_does_not_fit_waits_its_turn),
		cmocka_unit_test(a_full_queue_refuses),
		cmocka_unit_test(without_free_blocks_the_youngest_is_put_back_and_loses_no_token),
		cmocka_unit_test(an_adapter_waits_while_as_many_as_allowed_run),
		cmocka_unit_test(a_step_costs_its_decodes_and_its_chunk),
		cmocka_unit_test(load_stretches_a_step),
		cmocka_unit_test(a_fixed_time_to_first_token_holds_nobody_else_up),
		cmocka_unit_test(a_remote_prompt_is_stored_when_it_has_come),
		cmocka_unit_test(a_cache_in_use_is_not_reset_and_a_reset_is_told_with_the_next_step),
	};

	return cmocka_run_group_tests_name("kvsim engine", tests, NULL, NULL);
}
