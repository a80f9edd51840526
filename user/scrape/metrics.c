/* SPDX-License-Identifier: Apache-2.0
 * What the engines call their load. One row per metric: name, the label it needs, where it goes and how series of one
 * pod are joined (several data-parallel engines behind one address: requests add up, of KV usage the worst counts, the
 * cache's size adds up, block size is the same).
 *
 * Names are compared whole: vllm:num_requests_waiting_by_reason is another metric. Values that make no sense (NaN,
 * infinite, negative) are not known, which is not zero.
 *
 * Sources: the engines' documents and pages; see docs/internals/scrape.md.
 */
#include <math.h>

#include "scrape/scrape_int.h"

enum target { T_RUNNING, T_WAITING, T_KV, T_BLOCK, T_BLOCKS, T_TOKENS, T_N };
enum join { J_SUM, J_MAX };

struct rule {
	struct str name;
	enum pod_engine engine;
	enum target target;
	enum join join;
	struct str label, value; /* needed, {NULL, 0}: none */
	struct str from;	 /* the number is this label's value, not the sample's */
};

#define S(lit) { lit, sizeof(lit) - 1 }
#define NONE   { NULL, 0 }

static const struct rule rules[] = {
	{ S("vllm:num_requests_running"), ENGINE_VLLM, T_RUNNING, J_SUM, NONE, NONE, NONE },
	{ S("vllm:num_requests_waiting"), ENGINE_VLLM, T_WAITING, J_SUM, NONE, NONE, NONE },
	{ S("vllm:kv_cache_usage_perc"), ENGINE_VLLM, T_KV, J_MAX, NONE, NONE, NONE },
	{ S("vllm:gpu_cache_usage_perc"), ENGINE_VLLM, T_KV, J_MAX, NONE, NONE, NONE },
	{ S("vllm:cache_config_info"), ENGINE_VLLM, T_BLOCK, J_MAX, NONE, NONE, S("block_size") },
	{ S("vllm:cache_config_info"), ENGINE_VLLM, T_BLOCKS, J_SUM, NONE, NONE, S("num_gpu_blocks") },
	{ S("sglang:num_running_reqs"), ENGINE_SGLANG, T_RUNNING, J_SUM, NONE, NONE, NONE },
	{ S("sglang:num_queue_reqs"), ENGINE_SGLANG, T_WAITING, J_SUM, NONE, NONE, NONE },
	{ S("sglang:token_usage"), ENGINE_SGLANG, T_KV, J_MAX, NONE, NONE, NONE },
	{ S("sglang:cache_config_info"), ENGINE_SGLANG, T_BLOCK, J_MAX, NONE, NONE, S("page_size") },
	{ S("sglang:cache_config_info"), ENGINE_SGLANG, T_BLOCKS, J_SUM, NONE, NONE, S("num_pages") },
	{ S("sglang:page_size"), ENGINE_SGLANG, T_BLOCK, J_MAX, NONE, NONE, NONE },
	{ S("sglang:num_pages"), ENGINE_SGLANG, T_BLOCKS, J_SUM, NONE, NONE, NONE },
	{ S("sglang:max_total_num_tokens"), ENGINE_SGLANG, T_TOKENS, J_SUM, NONE, NONE, NONE },
	{ S("trtllm_num_requests_running"), ENGINE_TRTLLM, T_RUNNING, J_SUM, NONE, NONE, NONE },
	{ S("trtllm_num_requests_waiting"), ENGINE_TRTLLM, T_WAITING, J_SUM, NONE, NONE, NONE },
	{ S("trtllm_kv_cache_utilization"), ENGINE_TRTLLM, T_KV, J_MAX, NONE, NONE, NONE },
	{ S("trtllm_kv_cache_tokens_per_block"), ENGINE_TRTLLM, T_BLOCK, J_MAX, NONE, NONE, NONE },
	{ S("trtllm_kv_cache_max_blocks"), ENGINE_TRTLLM, T_BLOCKS, J_SUM, NONE, NONE, NONE },
	{ S("nv_trt_llm_request_metrics"), ENGINE_TRTLLM, T_WAITING, J_SUM, S("request_type"), S("waiting"), NONE },
	{ S("nv_trt_llm_request_metrics"), ENGINE_TRTLLM, T_RUNNING, J_SUM, S("request_type"), S("scheduled"), NONE },
	{ S("nv_trt_llm_kv_cache_block_metrics"), ENGINE_TRTLLM, T_KV, J_MAX, S("kv_cache_block_type"), S("fraction"),
	  NONE },
	{ S("nv_trt_llm_kv_cache_block_metrics"), ENGINE_TRTLLM, T_BLOCK, J_MAX, S("kv_cache_block_type"),
	  S("tokens_per"), NONE },
	{ S("nv_trt_llm_kv_cache_block_metrics"), ENGINE_TRTLLM, T_BLOCKS, J_SUM, S("kv_cache_block_type"), S("max"),
	  NONE },
};

static const struct str lora_info = S("vllm:lora_requests_info"), sleep_state = S("vllm:engine_sleep_state"),
			process_start = S("process_start_time_seconds"),
			triton_pending = S("nv_inference_pending_request_count");

/* The reading of one page. Numbers of several engines on it are kept apart; the engine seen first is the pod's. */
struct reading {
	struct str model; /* whose series count; found with the first one that has a label for it */
	bool asked;	  /* the caller has named it */
	enum pod_engine engine;
	double v[T_N];
	bool seen[T_N];
	bool asleep;
	double start;
	double pending; /* of Triton's queues, all models together; NAN: there are none */
	double lora_at; /* of the newest row so far */
	struct pod_adapters *adapters;
};

static struct str label_of(const struct expo_sample *s, struct str name)
{
	for (unsigned i = 0; i < s->nlabels; i++)
		if (str_eq(s->labels[i].name, name))
			return s->labels[i].value;
	return (struct str){ NULL, 0 };
}

/* Is it another model's series, or one that says the same of another shard of the same engine? */
static bool foreign(struct reading *r, const struct expo_sample *s)
{
	struct str model = label_of(s, STR("model_name")), v;

	if (!model.p)
		model = label_of(s, STR("model"));
	if (model.p && !r->model.p)
		r->model = model;
	if (model.p && !str_eq(model, r->model))
		return true;
	/* SGLang: each tensor and pipeline rank has its series; rows per priority stand beside their sum. */
	v = label_of(s, STR("tp_rank"));
	if (v.n && !str_eq(v, STR("0")))
		return true;
	v = label_of(s, STR("pp_rank"));
	if (v.n && !str_eq(v, STR("0")))
		return true;
	return label_of(s, STR("priority")).n != 0;
}

static double number_of(struct str s)
{
	uint64_t n;

	return str_u64(s, &n) ? NAN : (double)n; /* "None", most often */
}

static void join(struct reading *r, const struct rule *rule, double v)
{
	double *t = &r->v[rule->target];

	if (!isfinite(v) || v < 0)
		return;
	if (!r->seen[rule->target])
		*t = v;
	else if (rule->join == J_SUM)
		*t += v;
	else if (v > *t)
		*t = v;
	r->seen[rule->target] = true;
}

static void sleeping(struct reading *r, const struct expo_sample *s)
{
	struct str state = label_of(s, STR("sleep_state"));

	if (!str_eq(state, STR("awake")) || foreign(r, s))
		return;
	if (s->value == 0)
		r->asleep = true;
}

/* A list of names, escapes taken off; what does not fit is left out from a comma on. */
static void take_list(char *out, size_t cap, struct str s)
{
	size_t n = 0, whole = 0;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\\' && i + 1 < s.n)
			i++;
		else if (s.p[i] == ',')
			whole = n;
		if (n + 1 == cap) {
			n = whole;
			break;
		}
		out[n++] = s.p[i];
	}
	out[n] = '\0';
}

/* Each combination that there has been stays as a row of its own; its value is when it was last so. */
static void adapters(struct reading *r, const struct expo_sample *s)
{
	struct pod_adapters *a = r->adapters;
	uint64_t max;

	if (!a || !isfinite(s->value) || s->value <= r->lora_at)
		return;
	r->lora_at = s->value;
	a->known = true;
	a->max = str_u64(label_of(s, STR("max_lora")), &max) || max > UINT32_MAX ? 0 : (uint32_t)max;
	take_list(a->running, sizeof(a->running), label_of(s, STR("running_lora_adapters")));
	take_list(a->waiting, sizeof(a->waiting), label_of(s, STR("waiting_lora_adapters")));
}

/* Triton counts for each of its models (of an ensemble, its steps too), whatever the back end. */
static void pending(struct reading *r, const struct expo_sample *s)
{
	if (r->asked && !str_eq(label_of(s, STR("model")), r->model))
		return;
	if (isfinite(s->value) && s->value >= 0)
		r->pending = isnan(r->pending) ? s->value : r->pending + s->value;
}

static void sample(void *arg, const struct expo_sample *s)
{
	struct reading *r = arg;

	if (str_eq(s->name, process_start)) {
		/* Several processes may be joined on a page; the youngest tells of a restart. */
		if (isfinite(s->value) && !(s->value <= r->start))
			r->start = s->value;
		return;
	}
	if (str_eq(s->name, sleep_state)) {
		sleeping(r, s);
		return;
	}
	if (str_eq(s->name, lora_info)) {
		adapters(r, s);
		return;
	}
	if (str_eq(s->name, triton_pending)) {
		pending(r, s);
		return;
	}
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		const struct rule *rule = &rules[i];

		if (!str_eq(rule->name, s->name))
			continue;
		if (rule->label.p && !str_eq(label_of(s, rule->label), rule->value))
			continue;
		if (r->engine == ENGINE_UNKNOWN)
			r->engine = rule->engine;
		if (r->engine != rule->engine || foreign(r, s))
			return;
		join(r, rule, rule->from.p ? number_of(label_of(s, rule->from)) : s->value);
	}
}

static bool wanted(struct str name)
{
	if (str_eq(name, process_start) || str_eq(name, sleep_state) || str_eq(name, lora_info) ||
	    str_eq(name, triton_pending))
		return true;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (str_eq(rules[i].name, name))
			return true;
	return false;
}

static uint32_t count_of(const struct reading *r, enum target t)
{
	return r->seen[t] && r->v[t] <= UINT32_MAX ? (uint32_t)r->v[t] : 0;
}

void metrics_read(struct str text, struct str model, struct pod_sample *ret, enum pod_engine *ret_engine,
		  struct pod_adapters *ret_adapters)
{
	struct reading r = { .model = model, .asked = model.p, .start = NAN, .pending = NAN, .lora_at = -INFINITY };

	if (ret_adapters)
		*ret_adapters = (struct pod_adapters){ .known = false };
	r.adapters = ret_adapters;
	expo_each(text, wanted, sample, &r);
	*ret = (struct pod_sample){
		.running = r.seen[T_RUNNING] ? r.v[T_RUNNING] : NAN,
		.waiting = r.seen[T_WAITING] ? r.v[T_WAITING] : NAN,
		.kv_usage = r.seen[T_KV] ? r.v[T_KV] : NAN,
		.block_size = count_of(&r, T_BLOCK),
		.num_blocks = count_of(&r, T_BLOCKS),
		.process_start = r.start,
		.asleep = r.asleep,
	};
	/* SGLang before its capacity metrics: tokens only, and a page is one of them unless said otherwise. */
	if (!ret->num_blocks && r.seen[T_TOKENS] && ret->block_size)
		ret->num_blocks = (uint32_t)(r.v[T_TOKENS] / ret->block_size);
	/* Beside TRT-LLM's own numbers Triton's queues say nothing new. */
	if (r.engine == ENGINE_UNKNOWN && !isnan(r.pending)) {
		r.engine = ENGINE_TRITON;
		ret->waiting = r.pending;
	}
	*ret_engine = r.engine;
}
