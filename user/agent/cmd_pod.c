/* SPDX-License-Identifier: Apache-2.0
 * kvsteer pod …: what is known of each pod, and taking one out.
 */
#include <math.h>

#include "agent/commands.h"
#include "base/time.h"

const char *pod_state_name(const struct pod *p)
{
	uint32_t down = pod_down_now(p, time_mono());

	return down & POD_DOWN_REMOVED	 ? "removed"
	       : down & POD_DOWN_DRAINED ? "draining"
	       : down & POD_DOWN_HEALTH	 ? "down"
	       : down & POD_DOWN_EJECTED ? "ejected"
	       : down & POD_DOWN_ASLEEP	 ? "asleep"
	       : down & POD_DOWN_BACKOFF ? "backoff"
	       : pod_weight(p) == 0	 ? "draining"
					 : "up";
}

const char *pod_state_why(const struct pod *p)
{
	uint32_t down = pod_down_now(p, time_mono());

	return down & POD_DOWN_HEALTH	 ? p->last_error
	       : down & POD_DOWN_DRAINED ? "an operator drained it"
	       : down & POD_DOWN_EJECTED ? "failed several requests in a row"
	       : down & POD_DOWN_ASLEEP	 ? "its engine sleeps"
	       : down & POD_DOWN_BACKOFF ? "it asked for a pause (Retry-After)"
	       : pod_weight(p) == 0	 ? "its weight is 0"
					 : "";
}

static const char *role_name(enum pod_role r)
{
	return r == ROLE_PREFILL ? "prefill" : r == ROLE_DECODE ? "decode" : "both";
}

static const char *engine_name(enum pod_engine e)
{
	static const char *const names[] = { [ENGINE_UNKNOWN] = "unknown",
					     [ENGINE_VLLM] = "vllm",
					     [ENGINE_SGLANG] = "sglang",
					     [ENGINE_TRTLLM] = "trtllm",
					     [ENGINE_TRITON] = "triton" };

	return names[e];
}

static const char *index_state(const struct pod *p)
{
	return atomic_load(&p->index_live)    ? "live"
	       : atomic_load(&p->index_stale) ? "stale"
	       : p->spec.events[0]	      ? "connecting"
					      : "none";
}

static void pod_blocks(struct agent *a, const struct pod *p, uint64_t *ret_blocks, uint64_t *ret_guessed)
{
	*ret_blocks = *ret_guessed = 0;
	for (unsigned i = 0; i < p->spec.ranks && p->holder[i] < INDEX_HOLDERS; i++) {
		uint64_t b, g;

		index_holder_stats(a->index, p->holder[i], &b, &g);
		*ret_blocks += b;
		*ret_guessed += g;
	}
}

static void write_common(struct agent *a, struct pod *p, struct jw *w)
{
	struct pod_sample unknown = { .running = NAN, .waiting = NAN, .kv_usage = NAN };
	const struct pod_sample *s = p->sample.at_ns ? &p->sample : &unknown;
	uint64_t blocks, guessed;
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	pod_blocks(a, p, &blocks, &guessed);
	jw_kstr(w, "name", p->name);
	jw_kstr(w, "pool", a->cfg->pools[p->pool].name);
	jw_kstr(w, "role", role_name(pod_role(p)));
	jw_kstr(w, "state", pod_state_name(p));
	jw_kstr(w, "why", pod_state_why(p));
	jw_ku64(w, "inflight", v.n);
	jw_ku64(w, "waiting", v.waiting);
	jw_knum(w, "running", s->running);
	jw_knum(w, "engine_waiting", s->waiting);
	jw_knum(w, "kv_usage", s->kv_usage);
	jw_kstr(w, "index", index_state(p));
	jw_ku64(w, "blocks", blocks);
	jw_ku64(w, "predicted_tokens", atomic_load(&p->predicted_tokens));
	jw_ku64(w, "reported_tokens", atomic_load(&p->reported_tokens));
	jw_ku64(w, "requests", p->ledger.total);
	jw_ku64(w, "failed", p->ledger.failed);
	jw_kstr(w, "engine", engine_name(p->engine));
	jw_key(w, "models");
	jw_arr(w);
	for (unsigned i = 0; i < p->nmodels; i++)
		jw_str(w, p->models[i]);
	jw_end_arr(w);
}

/* "a,b" as ["a", "b"]. */
static void write_names(struct jw *w, const char *key, const char *names)
{
	jw_key(w, key);
	jw_arr(w);
	for (size_t n; *names; names += n + (names[n] == ',')) {
		n = strcspn(names, ",");
		if (n)
			jw_strn(w, (struct str){ names, n });
	}
	jw_end_arr(w);
}

/* Upper bound of the bucket in which the <q>-th part of all lies, in seconds; NAN: nothing was counted. */
static double quantile(const struct kvs_times *t, double q)
{
	uint64_t all = 0, upto = 0;

	for (unsigned i = 0; i < KVS_TIME_BUCKETS; i++)
		all += t->count[i];
	for (unsigned i = 0; i < KVS_TIME_BUCKETS && all; i++) {
		upto += t->count[i];
		if ((double)upto >= q * (double)all)
			return (double)(UINT64_C(1) << i) * 1e-6;
	}
	return NAN;
}

/* As the kernel saw it, of answers that were spliced. */
static void write_times(struct agent *a, const struct pod *p, struct jw *w)
{
	struct kvs_pod_times t = { 0 };

	datapath_times(a->datapath, &p->spec.addr, &t);
	jw_knum(w, "spliced_ttft_p50_s", quantile(&t.ttft, 0.5));
	jw_knum(w, "spliced_ttft_p99_s", quantile(&t.ttft, 0.99));
	jw_knum(w, "spliced_gap_p50_s", quantile(&t.gap, 0.5));
	jw_knum(w, "spliced_gap_p99_s", quantile(&t.gap, 0.99));
}

/* What its pool's configuration says of its model. */
static void write_config(const struct config_pool *c, struct jw *w)
{
	jw_kstr(w, "model_path", c->model_path);
	jw_kstr(w, "chat_template", c->chat_template);
	jw_kstr(w, "api_key_file", c->api_key_file);
	jw_key(w, "configured_models");
	jw_arr(w);
	for (unsigned i = 0; i < c->nmodels; i++)
		jw_str(w, c->models[i]);
	jw_end_arr(w);
}

static void write_row(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v)
{
	struct jw *w = arg;

	jw_obj(w);
	jw_kstr(w, "model", row->name);
	jw_kstr(w, "of", truth_kind_name(kind));
	jw_kbool(w, "doubted", v->doubted);
	jw_kstr(w, "cause", v->doubted ? truth_cause_name(v->cause) : NULL);
	jw_knum(w, "scale", (double)v->scale);
	jw_ku64(w, "compared", v->compared);
	jw_ku64(w, "recent", v->n);
	jw_ku64(w, "recent_off", v->off);
	jw_ku64(w, "recent_predicted_tokens", v->predicted);
	jw_ku64(w, "recent_reported_tokens", v->reported);
	jw_end_obj(w);
}

struct verdicts {
	unsigned rows, doubted;
	struct buf why;
};

static void gather(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v)
{
	struct verdicts *all = arg;

	all->rows++;
	if (!v->doubted)
		return;
	buf_printf(&all->why, "%s%s of %s (%s): %s; %s", all->doubted++ ? " | " : "", truth_kind_name(kind), row->name,
		   truth_cause_name(v->cause), truth_cause_text(v->cause), truth_cause_fix(v->cause));
}

/* Does what is predicted hold? For people in two lines, for programs with its numbers. */
static void write_truth(struct agent *a, const struct pod *p, struct jw *w)
{
	struct verdicts all = { 0 };

	meter_each(a, p, gather, &all);
	jw_kstr(w, "predictions", all.doubted ? "doubted" : all.rows ? "hold" : "not compared");
	jw_key(w, "doubts");
	jw_strn(w, all.doubted ? buf_str(&all.why) : (struct str){ NULL, 0 });
	jw_key(w, "compared");
	jw_arr(w);
	meter_each(a, p, write_row, w);
	jw_end_arr(w);
	buf_free(&all.why);
}

static void write_details(struct agent *a, struct pod *p, struct jw *w)
{
	uint64_t blocks, guessed;
	struct ledger_view v;

	ledger_read(p, time_mono(), &v);
	pod_blocks(a, p, &blocks, &guessed);
	jw_ku64(w, "id", p->id);
	jw_ku64(w, "generation", p->generation);
	jw_kstr(w, "version", p->version);
	jw_kstr(w, "last_error", p->last_error);
	jw_ku64(w, "weight", pod_weight(p));
	jw_ku64(w, "ranks", p->spec.ranks);
	jw_kstr(w, "events", p->spec.events);
	jw_kstr(w, "replay", p->spec.replay);
	jw_kstr(w, "namespace", agent_base_name(a, p));
	if (p->adapters.known) {
		jw_ku64(w, "max_adapters", p->adapters.max);
		write_names(w, "running_adapters", p->adapters.running);
		write_names(w, "waiting_adapters", p->adapters.waiting);
	}
	jw_ku64(w, "block_size", p->sample.block_size);
	jw_ku64(w, "num_blocks", p->sample.num_blocks);
	jw_key(w, "rate_s_per_token");
	jw_num(w, v.t > 0 ? v.s / v.t : NAN);
	jw_knum(w, "backlog_s", v.backlog);
	jw_ku64(w, "ejections", atomic_load(&p->ejections));
	jw_ku64(w, "garbage", atomic_load(&p->garbage));
	jw_ku64(w, "speculative", guessed);
	write_config(&a->cfg->pools[p->pool], w);
	jw_key(w, "last_event");
	if (atomic_load(&p->event_seq))
		jw_u64(w, atomic_load(&p->event_seq) - 1);
	else
		jw_null(w);
	jw_ku64(w, "event_gaps", atomic_load(&p->event_gaps));
	jw_ku64(w, "event_block_size", atomic_load(&p->event_block));
	jw_kbool(w, "hybrid", atomic_load(&p->hybrid));
	write_truth(a, p, w);
	write_times(a, p, w);
}

enum ctl_code cmd_pod_list(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;

	jw_arr(w);
	list_for_each (it, endpoints_pods(a->endpoints)) {
		jw_obj(w);
		write_common(a, container_of(it, struct pod, link), w);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	return CTL_OK;
}

static struct pod *named_pod(struct agent *a, json_t *args, struct buf *err, enum ctl_code *ret_code)
{
	const char *name = json_string_value(json_object_get(args, "pod"));
	struct pod *p;

	if (!name) {
		buf_puts(err, "\"pod\" is missing: ADDR:PORT as `kvsteer pod list` shows it");
		*ret_code = CTL_USAGE;
		return NULL;
	}
	p = endpoints_find(a->endpoints, str_of(name));
	if (!p) {
		buf_printf(err, "no pod is called \"%s\"; `kvsteer pod list` shows their names", name);
		*ret_code = CTL_NOT_FOUND;
	}
	return p;
}

enum ctl_code cmd_pod_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	enum ctl_code code = CTL_OK;
	struct pod *p = named_pod(a, args, err, &code);

	if (!p)
		return code;
	jw_obj(w);
	write_common(a, p, w);
	write_details(a, p, w);
	jw_end_obj(w);
	return CTL_OK;
}

static enum ctl_code set_drained(struct agent *a, json_t *args, struct jw *w, struct buf *err, bool on)
{
	enum ctl_code code = CTL_OK;
	struct pod *p = named_pod(a, args, err, &code);

	if (!p)
		return code;
	pod_set_down(p, POD_DOWN_DRAINED, on);
	loop_defer(a->loop, &a->publish);
	jw_obj(w);
	jw_kstr(w, "pod", p->name);
	jw_kstr(w, "state", pod_state_name(p));
	jw_end_obj(w);
	return CTL_OK;
}

enum ctl_code cmd_pod_drain(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	return set_drained(arg, args, w, err, true);
}

enum ctl_code cmd_pod_undrain(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	return set_drained(arg, args, w, err, false);
}
