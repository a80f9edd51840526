/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "scrape/scrape.h"

#define DATA "selftests/data/metrics/"

static struct buf page(const char *name)
{
	struct buf b = { 0 };
	char path[256];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), DATA "%s", name);
	f = fopen(path, "r");
	if (!f)
		fail_msg("cannot read %s", path);
	while ((n = fread(buf_room(&b, 65536), 1, 65536, f)) > 0)
		buf_commit(&b, n);
	fclose(f);
	return b;
}

static bool same(double a, double b)
{
	return (isnan(a) && isnan(b)) || fabs(a - b) < 1e-9;
}

static void each_engine_s_page_is_understood(void **state)
{
	static const struct {
		const char *file, *model;
		enum pod_engine engine;
		double running, waiting, kv;
		uint32_t block, blocks;
	} rows[] = {
		{ "vllm_metrics.txt", NULL, ENGINE_VLLM, 12, 2, 0.4210526315789474, 16, 27120 },
		{ "vllm_metrics.txt", "Qwen/Qwen3-8B", ENGINE_VLLM, 12, 2, 0.4210526315789474, 16, 27120 },
		{ "vllm_metrics_nolora.txt", NULL, ENGINE_VLLM, 12, 2, 0.4210526315789474, 16, 27120 },
		{ "vllm_metrics_dp2.txt", NULL, ENGINE_VLLM, 25, 7, 0.5210526315789474, 16, 54240 },
		{ "vllm_metrics_v08.txt", NULL, ENGINE_VLLM, 12, 2, 0.4210526315789474, 16, 27120 },
		{ "sglang_metrics.txt", NULL, ENGINE_SGLANG, 162, 2826, 0.28, 16, 27647 },
		{ "trtllm_serve_metrics.txt", NULL, ENGINE_TRTLLM, 7, 1, 0.31, 32, 9100 },
		{ "triton_trtllm_metrics.txt", NULL, ENGINE_TRTLLM, 8, 1, 0.4875, 64, 3200 },
		{ "triton_metrics.txt", NULL, ENGINE_TRITON, NAN, 5, NAN, 0, 0 },
		{ "triton_metrics.txt", "llm", ENGINE_TRITON, NAN, 4, NAN, 0, 0 },
		{ "metrics_edge_cases.txt", "m", ENGINE_VLLM, 2, 1, 0.42, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = page(rows[i].file);
		enum pod_engine engine;
		struct pod_sample s;

		metrics_read(buf_str(&b), str_of(rows[i].model), &s, &engine, NULL);
		if (engine != rows[i].engine || !same(s.running, rows[i].running) ||
		    !same(s.waiting, rows[i].waiting) || !same(s.kv_usage, rows[i].kv) ||
		    s.block_size != rows[i].block || s.num_blocks != rows[i].blocks || s.asleep)
			fail_msg("%s: engine %d, running %g, waiting %g, kv %g, %u blocks of %u", rows[i].file, engine,
				 s.running, s.waiting, s.kv_usage, s.num_blocks, s.block_size);
		buf_free(&b);
	}
}

static struct pod_sample read_text(const char *text, const char *model)
{
	enum pod_engine engine;
	struct pod_sample s;

	metrics_read(str_of(text), str_of(model), &s, &engine, NULL);
	return s;
}

#define W0 "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 9.0\n"
#define W1 "vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 3.0\n"
#define R0 "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 4.0\n"
#define R1 "vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 0.0\n"
#define K0 "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.91\n"
#define K1 "vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.05\n"
#define X  "vllm:num_requests_waiting{engine=\"0\",model_name=\"other\"} 100.0\n"

static void series_of_one_pod_s_engines_are_joined_in_any_order(void **state)
{
	static const char *const pages[] = { W0 W1 R0 R1 K0 K1, K1 K0 R1 R0 W1 W0, W0 R0 K0 W1 R1 K1 X,
					     X W0 W1 R0 R1 K0 K1 };

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		struct pod_sample s = read_text(pages[i], "m");

		assert_true(same(s.waiting, 12) && same(s.running, 4) && same(s.kv_usage, 0.91));
	}
}

static void what_is_not_there_is_unknown_not_zero(void **state)
{
	struct pod_sample s = read_text("up 1\n", NULL);

	assert_true(isnan(s.waiting) && isnan(s.running) && isnan(s.kv_usage) && isnan(s.process_start));
	assert_true(s.block_size == 0 && s.num_blocks == 0 && !s.asleep);
	s = read_text("vllm:kv_cache_usage_perc NaN\nvllm:num_requests_waiting -1\n", NULL);
	assert_true(isnan(s.waiting) && isnan(s.kv_usage));
}

static void sleep_and_restart_are_seen(void **state)
{
	struct pod_sample s;

	s = read_text("vllm:engine_sleep_state{engine=\"0\",model_name=\"m\",sleep_state=\"awake\"} 1.0\n"
		      "vllm:engine_sleep_state{engine=\"0\",model_name=\"m\",sleep_state=\"discard_all\"} 0.0\n"
		      "process_start_time_seconds 1.79536365924e+09\n",
		      NULL);
	assert_false(s.asleep);
	assert_true(same(s.process_start, 1795363659.24));
	s = read_text("vllm:engine_sleep_state{engine=\"0\",model_name=\"m\",sleep_state=\"awake\"} 0.0\n", NULL);
	assert_true(s.asleep);
}

static void sglang_s_ranks_and_priorities_do_not_add_up(void **state)
{
	struct pod_sample s;

	s = read_text("sglang:num_queue_reqs{model_name=\"m\",pp_rank=\"0\",tp_rank=\"0\",priority=\"\"} 5\n"
		      "sglang:num_queue_reqs{model_name=\"m\",pp_rank=\"0\",tp_rank=\"0\",priority=\"1\"} 3\n"
		      "sglang:num_queue_reqs{model_name=\"m\",pp_rank=\"0\",tp_rank=\"1\",priority=\"\"} 5\n"
		      "sglang:page_size{model_name=\"m\"} 16\nsglang:num_pages{model_name=\"m\"} 100\n",
		      NULL);
	assert_true(same(s.waiting, 5));
	assert_int_equal(s.block_size, 16);
	assert_int_equal(s.num_blocks, 100);
}

static void triton_s_queues_do_not_hide_trt_llm_s_numbers(void **state)
{
	static const char *const pages[] = {
		"nv_inference_pending_request_count{model=\"pre\",version=\"1\"} 9\n"
		"nv_trt_llm_request_metrics{model=\"llm\",request_type=\"waiting\",version=\"1\"} 2\n",
		"nv_trt_llm_request_metrics{model=\"llm\",request_type=\"waiting\",version=\"1\"} 2\n"
		"nv_inference_pending_request_count{model=\"pre\",version=\"1\"} 9\n",
	};

	for (size_t i = 0; i < 2; i++) {
		enum pod_engine engine;
		struct pod_sample s;

		metrics_read(str_of(pages[i]), (struct str){ NULL, 0 }, &s, &engine, NULL);
		assert_true(engine == ENGINE_TRTLLM && same(s.waiting, 2));
	}
}

#define LORA(running, waiting, at)                                                \
	"vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"" running \
	"\",waiting_lora_adapters=\"" waiting "\"} " at "\n"

static void the_newest_row_of_adapters_counts(void **state)
{
	static const struct {
		const char *page;
		bool known;
		const char *running, *waiting;
	} rows[] = {
		{ LORA("", "", "1.7901478470123456e+09") LORA("sql,food", "tweet", "1.790147902551e+09")
			  LORA("sql", "", "1.790147880118e+09"),
		  true, "sql,food", "tweet" },
		{ LORA("a", "b", "5") LORA("", "", "6"), true, "", "" },
		{ LORA("a\\\"b,c", "", "5"), true, "a\"b,c", "" },
		{ LORA("a", "", "NaN"), false, "", "" },
		{ R0, false, "", "" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pod_adapters a;
		enum pod_engine engine;
		struct pod_sample s;

		metrics_read(str_of(rows[i].page), (struct str){ NULL, 0 }, &s, &engine, &a);
		assert_true(a.known == rows[i].known && a.max == (a.known ? 4 : 0));
		assert_string_equal(a.running, rows[i].running);
		assert_string_equal(a.waiting, rows[i].waiting);
	}
}

static void a_list_of_adapters_that_is_too_long_ends_with_a_whole_name(void **state)
{
	struct buf b = { 0 };
	struct pod_adapters a;
	enum pod_engine engine;
	struct pod_sample s;

	buf_puts(&b, "vllm:lora_requests_info{running_lora_adapters=\"");
	for (unsigned i = 0; i < 200; i++)
		buf_printf(&b, "%sadapter-%03u", i ? "," : "", i);
	buf_puts(&b, "\"} 5\n");
	metrics_read(buf_str(&b), (struct str){ NULL, 0 }, &s, &engine, &a);
	assert_true(a.known && strlen(a.running) % 12 == 11 && strlen(a.running) > sizeof(a.running) - 13);
	buf_free(&b);
}

static void keep_last(void *arg, const struct expo_sample *s)
{
	*(struct expo_sample *)arg = *s;
}

static void lines_are_read_or_counted(void **state)
{
	static const struct {
		const char *line;
		unsigned bad, labels;
		double value;
	} rows[] = {
		{ "a 1", 0, 0, 1 },
		{ "a{} 2", 0, 0, 2 },
		{ "a{b=\"c\"} 3 1712345678000", 0, 1, 3 },
		{ "a{b=\"}\",c=\"\\\"\"} 4", 0, 2, 4 },
		{ "a {b=\"c\" , d=\"e\",} 5 # {t=\"x\"} 1", 0, 2, 5 },
		{ "a 6\r", 0, 0, 6 },
		{ "a +Inf", 0, 0, INFINITY },
		{ "a", 1, 0, 0 },
		{ "a{b=\"c} 1", 1, 0, 0 },
		{ "a{b=c} 1", 1, 0, 0 },
		{ "a{b=\"c\" d=\"e\"} 1", 1, 0, 0 },
		{ "a 1 2 3", 1, 0, 0 },
		{ "a one", 1, 0, 0 },
		{ "1a 1", 1, 0, 0 },
		{ "# TYPE a gauge", 0, 0, -1 },
		{ "a{b=\"c\\", 1, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct expo_sample s = { .value = rows[i].bad ? 0 : -1 };
		unsigned bad = expo_parse(str_of(rows[i].line), keep_last, &s);

		if (bad != rows[i].bad || (!bad && s.value != rows[i].value) || (!bad && s.nlabels != rows[i].labels))
			fail_msg("\"%s\": %u bad, %u labels, %g", rows[i].line, bad, s.nlabels, s.value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_engine_s_page_is_understood),
		cmocka_unit_test(series_of_one_pod_s_engines_are_joined_in_any_order),
		cmocka_unit_test(what_is_not_there_is_unknown_not_zero),
		cmocka_unit_test(sleep_and_restart_are_seen),
		cmocka_unit_test(sglang_s_ranks_and_priorities_do_not_add_up),
		cmocka_unit_test(triton_s_queues_do_not_hide_trt_llm_s_numbers),
		cmocka_unit_test(the_newest_row_of_adapters_counts),
		cmocka_unit_test(a_list_of_adapters_that_is_too_long_ends_with_a_whole_name),
		cmocka_unit_test(lines_are_read_or_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
