/* SPDX-License-Identifier: Apache-2.0
 * Ids → text with marks, with the small tokenizers of every family.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/rand.h"
#include "model/canon.h"

#define DATA "selftests/data/bpe/"

static const char *const families[] = { "qwen", "llama3", "o200k",  "tekken",	 "deepseek",
					"gpt2", "gemma",  "llama2", "metaspace", "metaspace-split" };
#define FAMILIES (sizeof(families) / sizeof(families[0]))

struct fixture {
	struct vocab *v;
	struct canon *c;
	json_t *rows;
};

static void setup(struct fixture *f, const char *family)
{
	char path[256], err[512];
	json_error_t e;

	snprintf(path, sizeof(path), DATA "%s", family);
	f->v = vocab_load(path, NULL, err, sizeof(err));
	if (!f->v)
		fail_msg("%s", err);
	f->c = canon_new(f->v);
	assert_non_null(f->c);
	snprintf(path, sizeof(path), DATA "%s/vectors.json", family);
	f->rows = json_load_file(path, JSON_ALLOW_NUL, &e);
	assert_non_null(f->rows);
}

static void teardown(struct fixture *f)
{
	json_decref(f->rows);
	canon_free(f->c);
	vocab_unref(f->v);
}

static size_t ids_of(const json_t *row, uint32_t *ids, size_t cap)
{
	const json_t *list = json_object_get(row, "ids");
	size_t n = json_array_size(list);

	assert_true(n <= cap);
	for (size_t i = 0; i < n; i++)
		ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
	return n;
}

/* In calls of at most <step> ids each. Returns the marks. */
static int feed(struct canon *c, const uint32_t *ids, size_t n, size_t step, struct buf *text)
{
	struct canon_tail tail = { 0 };
	int marks = 0, r;

	text->len = text->off = 0;
	for (size_t i = 0; i < n; i += step) {
		r = canon_text(c, &tail, ids + i, n - i < step ? n - i : step, text);
		assert_true(r >= 0);
		marks += r;
	}
	return marks;
}

static void what_a_tokenizer_made_has_no_marks_however_it_is_cut(void **state)
{
	static const size_t steps[] = { 1, 2, 3, 16, 100000 };
	uint32_t ids[2048];

	for (size_t i = 0; i < FAMILIES; i++) {
		struct buf text = { 0 }, plain = { 0 };
		struct fixture f;
		json_t *o;
		size_t k;

		setup(&f, families[i]);
		json_array_foreach(f.rows, k, o)
		{
			size_t n = ids_of(o, ids, 2048);

			plain.len = plain.off = 0;
			assert_int_equal(vocab_text(f.v, ids, n, &plain), 0);
			for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
				if (feed(f.c, ids, n, steps[s], &text))
					fail_msg("%s, row %zu, steps of %zu: %.*s", families[i], k, steps[s],
						 (int)buf_len(&text), buf_data(&text));
				assert_true(str_eq(buf_str(&text), buf_str(&plain)));
			}
		}
		buf_free(&text);
		buf_free(&plain);
		teardown(&f);
	}
}

static uint32_t id_of(const struct vocab *v, struct str text)
{
	for (uint32_t i = 0; i < vocab_size(v); i++)
		if (str_eq(vocab_token(v, i), text))
			return i;
	fail_msg("no token %.*s", (int)text.n, text.p);
	return 0;
}

/* Line ends one by one, where the tokenizer has a token for two. */
static void generated_line_ends_are_marked_at_the_second(void **state)
{
	struct buf text = { 0 };
	struct fixture f;
	uint32_t ids[6];

	setup(&f, "qwen");
	ids[0] = id_of(f.v, STR("a"));
	for (int i = 1; i < 6; i++)
		ids[i] = id_of(f.v, STR("\n"));
	id_of(f.v, STR("\n\n"));
	feed(f.c, ids, 2, 1, &text);
	assert_true(str_eq(buf_str(&text), STR("a\n")));
	feed(f.c, ids, 3, 1, &text);
	assert_true(str_eq(buf_str(&text), STR("a\n" CANON_MARK "\n")));
	buf_free(&text);
	teardown(&f);
}

/* Each multi-byte token of each text as its bytes, one at a time. */
static void a_token_in_pieces_is_marked(void **state)
{
	uint32_t ids[2048];
	unsigned tried = 0, found = 0;

	for (size_t i = 0; i < 6; i++) {
		struct buf text = { 0 };
		struct fixture f;
		json_t *o;
		size_t k;

		setup(&f, families[i]);
		json_array_foreach(f.rows, k, o)
		{
			size_t n = ids_of(o, ids, 1900), at = k % (n + 1);
			struct str s = STR("");

			for (; at < n && s.n < 2; at += s.n < 2)
				s = vocab_token(f.v, ids[at]);
			if (s.n < 2 || s.n > 100 || s.p[0] == '<')
				continue;
			memmove(ids + at + s.n, ids + at + 1, (n - at - 1) * sizeof(*ids));
			for (size_t b = 0; b < s.n; b++)
				ids[at + b] = id_of(f.v, (struct str){ s.p + b, 1 });
			tried++;
			found += feed(f.c, ids, n - 1 + s.n, 7, &text) > 0;
		}
		buf_free(&text);
		teardown(&f);
	}
	assert_true(tried > 500);
	assert_true(found > tried * 95 / 100);
}

/* Ids of nobody: the marks must be the same whatever the calls, so that a prompt of ids meets its blocks. */
static void the_same_ids_have_the_same_marks_however_they_are_cut(void **state)
{
	struct rng rng = { 7 };
	uint32_t ids[64];

	for (size_t i = 0; i < FAMILIES; i++) {
		struct buf a = { 0 }, b = { 0 };
		struct fixture f;

		setup(&f, families[i]);
		for (int round = 0; round < 60; round++) {
			size_t n = 1 + rng_below(&rng, 64);

			for (size_t k = 0; k < n; k++)
				do
					ids[k] = (uint32_t)rng_below(&rng, vocab_size(f.v));
				while (!vocab_token(f.v, ids[k]).p);
			feed(f.c, ids, n, 1, &a);
			feed(f.c, ids, n, 1 + rng_below(&rng, 40), &b);
			if (!str_eq(buf_str(&a), buf_str(&b)))
				fail_msg("%s, round %d: %.*s | %.*s", families[i], round, (int)buf_len(&a),
					 buf_data(&a), (int)buf_len(&b), buf_data(&b));
		}
		buf_free(&a);
		buf_free(&b);
		teardown(&f);
	}
}

static void an_unknown_beginning_is_not_judged(void **state)
{
	struct canon_tail tail = { .unknown = true };
	struct buf text = { 0 };
	struct fixture f;
	uint32_t ids[8];

	setup(&f, "qwen");
	for (int i = 0; i < 4; i++)
		ids[i] = id_of(f.v, STR("\n"));
	ids[4] = id_of(f.v, STR("a"));
	for (int i = 5; i < 8; i++)
		ids[i] = id_of(f.v, STR("\n"));
	assert_int_equal(canon_text(f.c, &tail, ids, 4, &text), 0);
	assert_true(tail.unknown);
	assert_int_equal(canon_text(f.c, &tail, ids + 4, 4, &text), 2);
	assert_false(tail.unknown);
	ids[0] = vocab_size(f.v);
	assert_int_equal(canon_text(f.c, &tail, ids, 3, &text), -ERANGE);
	buf_free(&text);
	teardown(&f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_a_tokenizer_made_has_no_marks_however_it_is_cut),
		cmocka_unit_test(generated_line_ends_are_marked_at_the_second),
		cmocka_unit_test(a_token_in_pieces_is_marked),
		cmocka_unit_test(the_same_ids_have_the_same_marks_however_they_are_cut),
		cmocka_unit_test(an_unknown_beginning_is_not_judged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
