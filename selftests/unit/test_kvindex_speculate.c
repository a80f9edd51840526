/* SPDX-License-Identifier: Apache-2.0
 * Stories about guesses: what a holder should have because a prompt went there, beside what it has.
 */
#include "kvindex_scene.h"

/* Guesses are fewer far from the beginning: a long prompt is found to within what each of them stands for. */
static void a_long_prompt_is_guessed_to_within_its_grid(void **state)
{
	static const uint32_t parts[] = { 1,	57,   128,  129,  500,	513,  1023, 1024,
					  1025, 2047, 2048, 2049, 4000, 4097, 11999 };
	uint64_t *at = calloc(12100, sizeof(*at));
	struct kvindex *x = fresh();
	const char *text = text_of(0, 170000);

	chunks_of(x, text, 12000 * INDEX_CHUNK, at, 12100);
	assert_int_equal(speculate(x, 0, 0, at, 0, 12000, 14 * 256, NS_PER_S, 0), 0);
	assert_true(stats(x).nodes < 220);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		uint32_t c = parts[i], step = c < 128 ? 4 : c < 512 ? 8 : c < 2048 ? 32 : 128;
		struct index_hit hit = look(x, 0, 0, text, (size_t)c * INDEX_CHUNK + 1);

		assert_int_equal(hit.bytes / INDEX_CHUNK, c / step * step);
		assert_int_equal(hit.tokens, hit.bytes / 4);
	}
	/* The same beginning, said by another. */
	assert_int_equal(speculate(x, 1, 0, at, 0, 3000, 14 * 256, 0, 4000), 0);
	assert_int_equal(look(x, 1, 0, text, 12000 * INDEX_CHUNK).bytes, 3000 / 128 * 128 * INDEX_CHUNK);
	assert_int_equal(look(x, 0, 0, text, 12000 * INDEX_CHUNK - 1).bytes, 11999 / 128 * 128 * INDEX_CHUNK);
	index_free(x);
	free(at);
}

/* Wherever in a long prompt the real blocks end. */
static void guesses_go_on_behind_real_blocks(void **state)
{
	static const uint32_t blocks[] = { 1, 100, 112, 146, 147, 447, 585, 600, 1000, 1170, 1791, 2340, 2500 };
	static const uint32_t parts[] = { 2, 100, 129, 300, 511, 513, 700, 1100, 2047, 2049, 2200, 2432, 2900, 3999 };
	uint64_t *at = calloc(4001, sizeof(*at));
	const char *text = text_of(0, 60000);

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
		struct kvindex *x = fresh();
		uint64_t real = (uint64_t)blocks[i] * BBYTES;

		chunks_of(x, text, 4000 * INDEX_CHUNK, at, 4001);
		put(x, 0, 1, text, blocks[i]);
		put(x, 1, 1, text, 3000); /* whose blocks go on over the multiples */
		assert_int_equal(speculate(x, 0, 0, at, (uint32_t)(real / INDEX_CHUNK), 4000, 14 * 256, NS_PER_S, 0),
				 0);
		for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++) {
			uint32_t c = parts[k], step = c < 128 ? 4 : c < 512 ? 8 : c < 2048 ? 32 : 128;
			uint64_t want = (uint64_t)(c / step * step) * INDEX_CHUNK, len = (uint64_t)c * INDEX_CHUNK + 1;
			uint64_t have = real < len ? real : len / BBYTES * BBYTES;

			want = want > real ? want : have; /* before that nothing is guessed */
			if (look(x, 0, 0, text, len).bytes != want)
				fail_msg("%u blocks, %u chunks: %u, not %u", blocks[i], c,
					 (unsigned)look(x, 0, 0, text, len).bytes, (unsigned)want);
		}
		index_free(x);
	}
	free(at);
}

/* What keeps a prefix in the LRU is being said again; the age tells when that is due. */
static void a_match_by_guess_tells_its_age(void **state)
{
	struct kvindex *x = fresh();
	uint64_t at[80], rest[80];
	char text[2000];

	memcpy(text, text_of(0, 1000), sizeof(text));
	chunks_of(x, text, 2000, at, 80);
	chunks_of(x, text_of(1, 1000), 4000, rest, 80); /* takes the place of the former */
	for (int round = 0; round < 2; round++) {
		assert_int_equal(speculate(x, 0, 0, at, 0, 35, 14 * 256, 0, 1000), 0);
		assert_in_range(look(x, 0, 0, text, 2000).age, 0, 35);
		assert_int_equal(speculate(x, 0, 0, rest, 0, 60, 14 * 256, 0, 1000), 0);
		assert_in_range(look(x, 0, 0, text, 2000).age, 60, 95);
	}
	index_free(x);
}

static void a_guess_ends_with_its_time(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 1000);
	uint64_t at[80], until = 5 * NS_PER_S;
	struct index_hit hit;

	chunks_of(x, text, 4000, at, 80);
	assert_int_equal(speculate(x, 0, 0, at, 0, 68, 14 * 256, until, 0), 0);
	assert_int_equal(speculate(x, 1, 0, at, 0, 28, 14 * 256, until + 30 * NS_PER_S, 0), 0);
	hit = look(x, 0, 0, text, 4000);
	assert_int_equal(hit.bytes, 68 * INDEX_CHUNK);
	assert_int_equal(hit.tokens, 68 * 14);
	assert_false(hit.exact);
	index_tick(x, until - 1);
	assert_int_equal(look(x, 0, 0, text, 4000).tokens, 68 * 14);
	index_tick(x, until);
	assert_int_equal(look(x, 0, 0, text, 4000).tokens, 0);
	for (uint64_t now = until; now < until + 30 * NS_PER_S; now += 50 * NS_PER_MS) {
		index_tick(x, now);
		assert_int_equal(look(x, 1, 0, text, 4000).tokens, 28 * 14);
	}
	index_tick(x, until + 30 * NS_PER_S);
	assert_int_equal(stats(x).nodes, 0);
	assert_int_equal(stats(x).expired, (68 + 28) / 4);
	/* An end that has passed already. */
	assert_int_equal(speculate(x, 0, 0, at, 0, 4, 256, until, 0), 0);
	index_tick(x, until + 30 * NS_PER_S);
	assert_int_equal(stats(x).nodes, 0);
	index_free(x);
}

static void a_guess_is_refreshed_and_undone(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 1000);
	uint64_t at[80];

	chunks_of(x, text, 4000, at, 80);
	assert_int_equal(speculate(x, 0, 0, at, 0, 20, 14 * 256, 1000, 0), 0);
	assert_int_equal(speculate(x, 0, 0, at, 0, 12, 14 * 256, NS_PER_S, 0), 0);
	unspeculate(x, 0, 0, at, 0, 12);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 20 * INDEX_CHUNK);
	index_tick(x, 2000);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 12 * INDEX_CHUNK);
	unspeculate(x, 0, 0, at, 4, 12);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 4 * INDEX_CHUNK);
	unspeculate(x, 0, 0, at, 0, 80 - 9);
	assert_int_equal(stats(x).nodes, 0);
	index_free(x);
}

static void real_blocks_win_over_guesses(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 1000);
	struct index_hit hit;
	uint64_t at[80];

	chunks_of(x, text, 4000, at, 80);
	put(x, 0, 100, text, 10); /* 640 bytes */
	assert_int_equal(speculate(x, 0, 0, at, 11, 40, 14 * 256, NS_PER_S, 0), 0);
	hit = look(x, 0, 0, text, 4000);
	assert_false(hit.exact);
	assert_int_equal(hit.bytes, 40 * INDEX_CHUNK);
	assert_in_range(hit.tokens, 40 * 14 - 1, 40 * 14);
	put(x, 0, 100, text, 36); /* 2304 bytes, the guess ends at 2240 */
	hit = look(x, 0, 0, text, 4000);
	assert_true(hit.exact);
	assert_int_equal(hit.tokens, 36 * BLOCK);
	/* The last block of a prompt that is cached to its end is not made good by a guess. */
	hit = look(x, 0, 0, text, 35 * BBYTES);
	assert_true(hit.exact);
	assert_int_equal(hit.tokens, 34 * BLOCK);
	index_tick(x, 2 * NS_PER_S);
	assert_int_equal(look(x, 0, 0, text, 4000).tokens, 36 * BLOCK);
	index_free(x);
}

static void an_engine_without_events_has_an_lru(void **state)
{
	struct kvindex *x = fresh();
	uint64_t at[3][40], blocks, guesses;
	char text[3][2240];

	for (unsigned d = 0; d < 3; d++) {
		memcpy(text[d], text_of(d, 560), 2240);
		chunks_of(x, text[d], 2240, at[d], 40);
	}
	assert_int_equal(speculate(x, 0, 0, at[0], 0, 40, 3584, 0, 100), 0);
	assert_int_equal(speculate(x, 0, 0, at[1], 0, 40, 3584, 0, 100), 0);
	assert_int_equal(speculate(x, 0, 0, at[0], 0, 5, 3584, 0, 100), 0);
	assert_int_equal(speculate(x, 0, 0, at[2], 0, 40, 3584, 0, 100), 0);
	index_holder_stats(x, 0, &blocks, &guesses);
	assert_int_equal(guesses, 100 / 4);
	/* 120 chunks for 100 places: the tail of the first text goes, its head was used again. */
	assert_int_equal(look(x, 0, 0, text[0], 2239).bytes, 20 * INDEX_CHUNK);
	assert_int_equal(look(x, 0, 0, text[1], 2239).bytes, 36 * INDEX_CHUNK);
	index_tick(x, 1000 * NS_PER_S);
	assert_int_equal(look(x, 0, 0, text[2], 2239).bytes, 36 * INDEX_CHUNK);
	index_clear(x, 0);
	assert_int_equal(stats(x).nodes, 0);
	index_free(x);
}

static void guesses_of_exact_texts_end_once_events_flow(void **state)
{
	struct kvindex *x = fresh();
	const char *text = text_of(0, 1000);
	uint64_t at[80], places[17];
	struct index_guess g = { .at = places, .n = 68, .until_ns = NS_PER_S, .lru_chunks = 68 }, other = g;

	chunks_of(x, text, 4000, at, 80);
	index_thin(at, 0, 68, places);
	other.ns = 1;
	other.until_ns = 0; /* a text that no event will tell of */
	other.lru_chunks = 200;
	assert_int_equal(index_speculate(x, &other), 0);
	other.ns = 2;
	other.until_ns = NS_PER_S;
	assert_int_equal(index_speculate(x, &other), 0);
	assert_int_equal(index_speculate(x, &g), 0); /* drives the oldest out */
	index_tick(x, 2 * NS_PER_S);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 68 * INDEX_CHUNK);
	assert_int_equal(look(x, 0, 1, text, 4000).bytes + look(x, 0, 2, text, 4000).bytes, 0);
	assert_int_equal(index_speculate(x, &(struct index_guess){ .at = places, .ns = 1, .n = 20, .lru_chunks = 200 }),
			 0);
	index_live(x, 0, true, 4 * NS_PER_S);
	index_tick(x, 4 * NS_PER_S - 1);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 68 * INDEX_CHUNK);
	index_tick(x, 4 * NS_PER_S);
	assert_int_equal(look(x, 0, 0, text, 4000).bytes, 0);
	assert_int_equal(look(x, 0, 1, text, 4000).bytes, 20 * INDEX_CHUNK);
	index_free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_long_prompt_is_guessed_to_within_its_grid),
		cmocka_unit_test(guesses_go_on_behind_real_blocks),
		cmocka_unit_test(a_match_by_guess_tells_its_age),
		cmocka_unit_test(a_guess_ends_with_its_time),
		cmocka_unit_test(a_guess_is_refreshed_and_undone),
		cmocka_unit_test(real_blocks_win_over_guesses),
		cmocka_unit_test(an_engine_without_events_has_an_lru),
		cmocka_unit_test(guesses_of_exact_texts_end_once_events_flow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
