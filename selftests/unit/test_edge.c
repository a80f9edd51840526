/* SPDX-License-Identifier: Apache-2.0
 * Where a prompt's tokens end, told from the words around a place, and the form of a text that ids give back, with the
 * small tokenizers of every family. The whole text's ids are the truth.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/rand.h"
#include "model/encoder.h"

#define DATA "selftests/data/bpe/"

static const char *const families[] = { "qwen", "llama3", "o200k",  "tekken",	 "deepseek",
					"gpt2", "gemma",  "llama2", "metaspace", "metaspace-split" };
#define FAMILIES (sizeof(families) / sizeof(families[0]))

struct fixture {
	struct vocab *v;
	struct encoder *whole, *small;
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
	f->whole = encoder_new(f->v);
	f->small = encoder_new_small(f->v);
	assert_non_null(f->whole);
	assert_non_null(f->small);
	snprintf(path, sizeof(path), DATA "%s/vectors.json", family);
	f->rows = json_load_file(path, JSON_ALLOW_NUL, &e);
	assert_non_null(f->rows);
}

static void teardown(struct fixture *f)
{
	json_decref(f->rows);
	encoder_free(f->whole);
	encoder_free(f->small);
	vocab_unref(f->v);
}

static struct str row_text(const json_t *rows, size_t i)
{
	const json_t *t = json_object_get(json_array_get(rows, i), "text");

	return (struct str){ json_string_value(t), json_string_length(t) };
}

/* Some rows, one behind the other. */
static void some_text(const struct fixture *f, struct rng *rng, struct buf *text)
{
	text->len = text->off = 0;
	for (unsigned i = 1 + (unsigned)rng_below(rng, 12); i; i--) {
		struct str s = row_text(f->rows, rng_below(rng, json_array_size(f->rows)));

		assert_int_equal(buf_put(text, s.p, s.n), 0);
	}
}

/* The text of its own ids: what blocks are made of. */
static void canonical(const struct fixture *f, struct buf *text, struct buf *ids)
{
	ids->len = ids->off = 0;
	assert_int_equal(encoder_encode(f->whole, buf_str(text), false, ids), 0);
	text->len = text->off = 0;
	assert_int_equal(vocab_text(f->v, (uint32_t *)(void *)buf_data(ids), buf_len(ids) / 4, text), 0);
	ids->len = ids->off = 0;
	assert_int_equal(encoder_encode(f->whole, buf_str(text), false, ids), 0);
}

static void the_words_around_a_place_tell_whether_a_token_ends_there(void **state)
{
	struct rng rng = { 11 };

	for (size_t i = 0; i < FAMILIES; i++) {
		struct buf text = { 0 }, ids = { 0 };
		unsigned inside = 0, seen = 0;
		struct fixture f;

		setup(&f, families[i]);
		for (int round = 0; round < 60; round++) {
			const uint32_t *id;
			size_t at = 0, k = 0, end = 0;

			some_text(&f, &rng, &text);
			canonical(&f, &text, &ids);
			id = (const uint32_t *)(const void *)buf_data(&ids);
			for (k = 0; k < buf_len(&ids) / 4; k++)
				end += vocab_token(f.v, id[k]).n;
			if (end != buf_len(&text))
				continue; /* a token that takes spaces with it */
			for (k = end = 0; at <= buf_len(&text); at++) {
				bool cuts = encoder_cuts(f.small, buf_str(&text), at);

				while (end < at)
					end += vocab_token(f.v, id[k++]).n;
				if (end == at && !cuts)
					fail_msg("%s: a token ends at %zu of %.*s", families[i], at,
						 (int)buf_len(&text), buf_data(&text));
				inside += end != at;
				seen += end != at && !cuts;
			}
		}
		/* Where a tokenizer does not cut into words there is nothing to tell it by. */
		if (i < 6 && seen < inside * 9 / 10)
			fail_msg("%s: %u of %u", families[i], seen, inside);
		buf_free(&text);
		buf_free(&ids);
		teardown(&f);
	}
}

static void a_text_is_rewritten_to_what_its_ids_give_back(void **state)
{
	struct rng rng = { 12 };
	unsigned rewritten = 0;

	for (size_t i = 0; i < FAMILIES; i++) {
		struct buf text = { 0 }, ids = { 0 }, to = { 0 }, back = { 0 };
		struct fixture f;

		setup(&f, families[i]);
		for (int round = 0; round < 300; round++) {
			struct str now, want;
			int r;

			some_text(&f, &rng, &text);
			to.len = to.off = ids.len = ids.off = back.len = back.off = 0;
			assert_int_equal(encoder_encode(f.whole, buf_str(&text), false, &ids), 0);
			assert_int_equal(vocab_text(f.v, (uint32_t *)(void *)buf_data(&ids), buf_len(&ids) / 4, &back),
					 0);
			r = vocab_rewrite(f.v, buf_str(&text), &to);
			assert_in_range(r, 0, 1);
			assert_true(r == 0 || text_may_be_rewritten(buf_data(&text), buf_len(&text)));
			now = r ? buf_str(&to) : buf_str(&text);
			want = buf_str(&back);
			/* The space that is put before a text is not the text's. */
			if (want.n == now.n + 1 && want.p[0] == ' ')
				want = (struct str){ want.p + 1, want.n - 1 };
			rewritten += r;
			if (i >= 7 || want.n < now.n) /* spaces before each piece; tokens that strip some */
				continue;
			if (!str_eq(now, want))
				fail_msg("%s: %.*s | %.*s", families[i], (int)now.n, now.p, (int)want.n, want.p);
		}
		buf_free(&text);
		buf_free(&ids);
		buf_free(&to);
		buf_free(&back);
		teardown(&f);
	}
	assert_true(rewritten > 100);
}

static void what_is_no_text_stays_as_it_is(void **state)
{
	static const char *const odd[] = { "a\xcc", "e\xcc\x81 \xff", "\xf0\x9f", "\xed\xa0\x80" };
	struct buf to = { 0 };
	struct fixture f;

	setup(&f, "qwen");
	assert_int_equal(vocab_rewrite(f.v, (struct str){ NULL, 0 }, &to), 0);
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		assert_int_equal(vocab_rewrite(f.v, str_of(odd[i]), &to), 0);
		for (size_t at = 0; at <= strlen(odd[i]); at++)
			(void)encoder_cuts(f.small, str_of(odd[i]), at);
	}
	assert_int_equal(vocab_rewrite(f.v, STR("e\xcc\x81"), &to), 1);
	assert_true(str_eq(buf_str(&to), STR("\xc3\xa9")));
	buf_free(&to);
	teardown(&f);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_words_around_a_place_tell_whether_a_token_ends_there),
		cmocka_unit_test(a_text_is_rewritten_to_what_its_ids_give_back),
		cmocka_unit_test(what_is_no_text_stays_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
