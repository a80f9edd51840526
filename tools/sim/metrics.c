/* SPDX-License-Identifier: Apache-2.0
 *
 * vLLM's names, labels and order of labels. Counters have their _created companions, as prometheus_client writes them.
 */
#include <math.h>
#include <stdio.h>

#include "base/time.h"
#include "sim.h"

struct out {
	struct buf *b;
	char labels[300]; /* engine and model_name, without braces */
	const char *model;
	double created;
};

static void family(struct out *o, const char *name, const char *type, const char *help)
{
	buf_printf(o->b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* As Python's repr writes a float: always with a point or an exponent. */
static void number(struct out *o, double v)
{
	char s[40];

	if (v == floor(v) && fabs(v) < 1e15)
		snprintf(s, sizeof(s), "%.1f", v);
	else
		snprintf(s, sizeof(s), "%.17g", v);
	buf_printf(o->b, "%s\n", s);
}

static void gauge(struct out *o, const char *name, const char *help, double v)
{
	family(o, name, "gauge", help);
	buf_printf(o->b, "%s{%s} ", name, o->labels);
	number(o, v);
}

struct counted {
	const char *label, *value; /* between engine and model_name or behind it, as sorted */
	double v;
};

static void series(struct out *o, const char *name, const char *suffix, const struct counted *c, double v)
{
	if (!c->label)
		buf_printf(o->b, "%s%s{%s} ", name, suffix, o->labels);
	else if (c->label[0] < 'm')
		buf_printf(o->b, "%s%s{engine=\"0\",%s=\"%s\",model_name=\"%s\"} ", name, suffix, c->label, c->value,
			   o->model);
	else
		buf_printf(o->b, "%s%s{%s,%s=\"%s\"} ", name, suffix, o->labels, c->label, c->value);
	number(o, v);
}

static void counters(struct out *o, const char *name, const char *help, const struct counted *c, unsigned n)
{
	char created[96];

	snprintf(created, sizeof(created), "%s_total", name);
	family(o, created, "counter", help);
	for (unsigned i = 0; i < n; i++)
		series(o, name, "_total", &c[i], c[i].v);
	snprintf(created, sizeof(created), "%s_created", name);
	family(o, created, "gauge", help);
	for (unsigned i = 0; i < n; i++)
		series(o, name, "_created", &c[i], o->created);
}

static void counter(struct out *o, const char *name, const char *help, double v)
{
	struct counted c = { NULL, NULL, v };

	counters(o, name, help, &c, 1);
}

static void histogram(struct out *o, const char *name, const char *help, const struct phist *h)
{
	uint64_t n = 0;
	char le[32];

	family(o, name, "histogram", help);
	for (unsigned i = 0; i <= h->n; i++) {
		n += h->count[i];
		if (i == h->n)
			snprintf(le, sizeof(le), "+Inf");
		else if (h->le[i] == floor(h->le[i]))
			snprintf(le, sizeof(le), "%.1f", h->le[i]);
		else
			snprintf(le, sizeof(le), "%g", h->le[i]);
		buf_printf(o->b, "%s_bucket{engine=\"0\",le=\"%s\",model_name=\"%s\"} ", name, le, o->model);
		number(o, (double)n);
	}
	buf_printf(o->b, "%s_count{%s} ", name, o->labels);
	number(o, (double)n);
	buf_printf(o->b, "%s_sum{%s} ", name, o->labels);
	number(o, h->sum);
	buf_printf(o->b, "# HELP %s_created %s\n# TYPE %s_created gauge\n%s_created{%s} ", name, help, name, name,
		   o->labels);
	number(o, o->created);
}

static void cache_config(struct out *o, const struct pod *p)
{
	family(o, "vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
	buf_printf(o->b,
		   "vllm:cache_config_info{block_size=\"%u\",cache_dtype=\"auto\",enable_prefix_caching=\"%s\",engine="
		   "\"0\","
		   "gpu_memory_utilization=\"0.92\",is_attention_free=\"False\",kv_cache_size_tokens=\"%llu\","
		   "num_cpu_blocks=\"None\",num_gpu_blocks=\"%u\",num_gpu_blocks_override=\"None\","
		   "prefix_caching_hash_algo=\"sha256_cbor\",sliding_window=\"None\",user_specified_block_size="
		   "\"True\"} 1.0\n",
		   p->o.block_size, p->o.prefix_caching ? "True" : "False",
		   (unsigned long long)p->o.kv_blocks * p->o.block_size, p->o.kv_blocks);
}

static void adapters(struct out *o, struct pod *p)
{
	struct buf running = { 0 }, waiting = { 0 };

	if (!p->o.nlora)
		return;
	for (unsigned i = 0; i < p->o.nlora; i++) {
		struct str name = str_of(p->o.lora[i].name);

		if (engine_lora_running(&p->e, name))
			buf_printf(&running, "%s%s", buf_len(&running) ? "," : "", p->o.lora[i].name);
		if (engine_lora_waiting(&p->e, name))
			buf_printf(&waiting, "%s%s", buf_len(&waiting) ? "," : "", p->o.lora[i].name);
	}
	family(o, "vllm:lora_requests_info", "gauge", "Running stats on lora requests.");
	buf_printf(o->b,
		   "vllm:lora_requests_info{max_lora=\"%u\",running_lora_adapters=\"%.*s\",waiting_lora_adapters=\"%.*"
		   "s\"} ",
		   p->o.max_loras, (int)buf_len(&running), running.mem ? buf_data(&running) : "",
		   (int)buf_len(&waiting), waiting.mem ? buf_data(&waiting) : "");
	number(o, (double)time_wall() * 1e-9);
	buf_free(&running);
	buf_free(&waiting);
}

static void gauges(struct out *o, struct pod *p)
{
	double t = (double)(time_mono() - p->start_ns) * 1e-9;
	double waiting = fake_value(&p->o.fake_waiting, t, p->e.nwaiting);
	struct counted by_reason[] = { { "reason", "capacity", waiting }, { "reason", "deferred", 0 } };
	struct counted state[] = { { "sleep_state", "awake", p->sleep_level == 0 },
				   { "sleep_state", "weights_offloaded", p->sleep_level == 1 },
				   { "sleep_state", "discard_all", p->sleep_level == 2 } };

	gauge(o, "vllm:num_requests_running", "Number of requests in model execution batches.",
	      fake_value(&p->o.fake_running, t, p->e.nrunning));
	gauge(o, "vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting);
	family(o, "vllm:num_requests_waiting_by_reason", "gauge", "Number of waiting requests, by reason.");
	for (unsigned i = 0; i < 2; i++)
		series(o, "vllm:num_requests_waiting_by_reason", "", &by_reason[i], by_reason[i].v);
	family(o, "vllm:engine_sleep_state", "gauge", "Engine sleep state.");
	for (unsigned i = 0; i < 3; i++)
		series(o, "vllm:engine_sleep_state", "", &state[i], state[i].v);
	gauge(o, "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.",
	      fake_value(&p->o.fake_usage, t, cache_usage(&p->e.cache)));
}

int metrics_write(struct pod *p, struct buf *b)
{
	const struct engine_stats *s = &p->e.stats;
	struct out o = { .b = b, .model = p->o.served.n ? p->o.served.v[0] : p->o.model, .created = p->start_wall };
	struct counted source[] = { { "source", "local_compute", (double)s->computed_tokens },
				    { "source", "local_cache_hit", (double)s->hits },
				    { "source", "external_kv_transfer", (double)s->remote_tokens } };
	struct counted done[] = { { "finished_reason", "stop", (double)s->finished[FINISH_STOP] },
				  { "finished_reason", "length", (double)s->finished[FINISH_LENGTH] },
				  { "finished_reason", "abort", (double)s->finished[FINISH_ABORT] },
				  { "finished_reason", "error", (double)s->finished[FINISH_ERROR] } };

	snprintf(o.labels, sizeof(o.labels), "engine=\"0\",model_name=\"%s\"", o.model);
	family(&o, "process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.");
	buf_puts(b, "process_start_time_seconds ");
	number(&o, p->start_wall);
	gauges(&o, p);
	counter(&o, "vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.",
		(double)s->queries);
	counter(&o, "vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.",
		(double)s->hits);
	counter(&o, "vllm:num_preemptions", "Cumulative number of preemption from the engine.", (double)s->preemptions);
	counter(&o, "vllm:prompt_tokens", "Number of prefill tokens processed.", (double)s->prompt_tokens);
	counters(&o, "vllm:prompt_tokens_by_source", "Number of prompt tokens by source.", source, 3);
	counter(&o, "vllm:prompt_tokens_cached", "Number of cached prompt tokens.",
		(double)(s->hits + s->remote_tokens));
	counter(&o, "vllm:generation_tokens", "Number of generation tokens processed.", (double)s->generated_tokens);
	counters(&o, "vllm:request_success", "Count of successfully processed requests.", done, 4);
	histogram(&o, "vllm:request_prompt_tokens", "Number of prefill tokens processed.", &s->prompt);
	histogram(&o, "vllm:request_generation_tokens", "Number of generation tokens processed.", &s->generation);
	histogram(&o, "vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", &s->iteration);
	histogram(&o, "vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &s->ttft);
	histogram(&o, "vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &s->itl);
	histogram(&o, "vllm:request_time_per_output_token_seconds",
		  "Histogram of time_per_output_token_seconds per request.", &s->tpot);
	histogram(&o, "vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &s->e2e);
	histogram(&o, "vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.",
		  &s->queue);
	histogram(&o, "vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.",
		  &s->inference);
	histogram(&o, "vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.",
		  &s->prefill);
	histogram(&o, "vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.",
		  &s->decode);
	cache_config(&o, p);
	adapters(&o, p);
	family(&o, "kvsim_faults_total", "counter", "Failures injected.");
	buf_printf(b, "kvsim_faults_total %llu\n", (unsigned long long)p->faults);
	family(&o, "kvsim_connections_total", "counter", "Connections accepted.");
	buf_printf(b, "kvsim_connections_total %llu\n", (unsigned long long)p->connections);
	return 0;
}
