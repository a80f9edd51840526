/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "stats/stats.h"

static void shards_add_up(void **state)
{
	struct stats *s = aligned_alloc(64, 3 * sizeof(*s));

	memset(s, 0, 3 * sizeof(*s));
	stats_inc(&s[0], STATS_REQ);
	stats_add(&s[2], STATS_REQ, 41);
	stats_inc(&s[1], STATS_CONN_ACCEPTED);
	assert_int_equal(stats_sum(s, 3, STATS_REQ), 42);
	assert_int_equal(stats_sum(s, 2, STATS_REQ), 1);
	assert_int_equal(stats_sum(s, 3, STATS_CONN_CLOSED), 0);
	free(s);
}

/* The text, line by line: HELP, TYPE, then the family's samples; no name twice. */
static void a_family_is_announced_once_and_stays_together(void **state)
{
	struct stats *s = aligned_alloc(64, sizeof(*s));
	struct buf b = { 0 };
	char seen[STATS_N][96], family[96] = "", help[96] = "";
	unsigned nseen = 0, samples = 0;
	char *save = NULL;

	memset(s, 0, sizeof(*s));
	for (unsigned i = 0; i < STATS_N; i++)
		stats_add(s, i, i + 1);
	assert_int_equal(stats_write(s, 1, &b), 0);
	buf_put(&b, "", 1);
	for (char *line = strtok_r(buf_data(&b), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[96], want[160];
		const char *label;

		if (sscanf(line, "# HELP %95s", name) == 1) {
			assert_true(strlen(line) > strlen("# HELP  ") + strlen(name));
			for (unsigned i = 0; i < nseen; i++)
				assert_string_not_equal(seen[i], name);
			strcpy(seen[nseen++], name);
			strcpy(help, name);
		} else if (sscanf(line, "# TYPE %95s counter", name) == 1) {
			assert_string_equal(name, help);
			strcpy(family, name);
		} else {
			assert_int_equal(strncmp(line, "kvsteer_", 8), 0);
			assert_int_equal(strncmp(line, family, strlen(family)), 0);
			snprintf(name, sizeof(name), "kvsteer_%s", stats_name(samples, &label));
			assert_string_equal(name, family);
			snprintf(want, sizeof(want), *label ? "%s{%s} %u" : "%s%s %u", name, label, samples + 1);
			assert_string_equal(line, want);
			samples++;
		}
	}
	assert_int_equal(samples, STATS_N);
	buf_free(&b);
	free(s);
}

static void durations_fall_into_their_buckets(void **state)
{
	static const struct {
		uint64_t ns;
		unsigned bucket; /* STATS_BUCKETS: only counted */
	} rows[] = {
		{ 0, 0 },
		{ 1, 0 },
		{ 1023, 0 },
		{ 1024, 1 },
		{ 2047, 1 },
		{ 2048, 2 },
		{ (UINT64_C(1) << 37) - 1, 27 },
		{ UINT64_C(1) << 37, STATS_BUCKETS },
		{ UINT64_C(1) << 62, STATS_BUCKETS },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct stats_hist h = { 0 };

		stats_hist_add(&h, rows[i].ns);
		for (unsigned k = 0; k < STATS_BUCKETS; k++)
			assert_int_equal(h.bucket[k], k == rows[i].bucket);
		assert_int_equal(h.count, 1);
		assert_int_equal(h.sum_ns, rows[i].ns);
	}
}

static void a_histogram_is_written_in_seconds_and_cumulative(void **state)
{
	struct {
		uint64_t other;
		struct stats_hist h;
	} shard[2] = { 0 };
	struct buf b = { 0 };
	const char *text;
	unsigned lines = 0;

	stats_hist_add(&shard[0].h, 1000);
	stats_hist_add(&shard[1].h, 1500);
	stats_hist_add(&shard[1].h, 1000000000);
	stats_hist_add(&shard[1].h, UINT64_C(200) * 1000000000);
	assert_int_equal(stats_hist_write(&shard[0].h, 2, sizeof(shard[0]), "ttft_seconds", "Time to first token", &b),
			 0);
	buf_put(&b, "", 1);
	text = buf_data(&b);
	assert_ptr_equal(strstr(text, "# HELP kvsteer_ttft_seconds Time to first token\n"
				      "# TYPE kvsteer_ttft_seconds histogram\n"
				      "kvsteer_ttft_seconds_bucket{le=\"1.024e-06\"} 1\n"
				      "kvsteer_ttft_seconds_bucket{le=\"2.048e-06\"} 2\n"),
			 text);
	assert_non_null(strstr(text, "_bucket{le=\"0.536870912\"} 2\n"));
	assert_non_null(strstr(text, "_bucket{le=\"1.073741824\"} 3\n"));
	assert_non_null(strstr(text, "_bucket{le=\"137.438953472\"} 3\n"
				     "kvsteer_ttft_seconds_bucket{le=\"+Inf\"} 4\n"
				     "kvsteer_ttft_seconds_sum 201.000002500\n"
				     "kvsteer_ttft_seconds_count 4\n"));
	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	assert_int_equal(lines, 2 + STATS_BUCKETS + 3);
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shards_add_up),
		cmocka_unit_test(a_family_is_announced_once_and_stays_together),
		cmocka_unit_test(durations_fall_into_their_buckets),
		cmocka_unit_test(a_histogram_is_written_in_seconds_and_cumulative),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
