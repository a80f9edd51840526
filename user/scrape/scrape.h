/* SPDX-License-Identifier: Apache-2.0
 * How loaded a pod says it is, which models it serves, whether it is alive: GET /metrics, /v1/models and the health
 * path on the loop, at intervals with ±10 % jitter. Engines' metric names and their quirks: metrics.c.
 *
 * Threads: the loop's.
 */
#ifndef KVS_SCRAPE_SCRAPE_H
#define KVS_SCRAPE_SCRAPE_H

#include "base/str.h"
#include "config/config.h"
#include "endpoint/endpoint.h"
#include "loop/loop.h"
#include "stats/stats.h"

struct scrape;

struct scrape_sink {
	void (*changed)(void *arg, struct pod *p); /* a sample, models or health of <p> were set: publish */
	void *arg;
};

struct scrape *scrape_start(struct loop *l, const struct config *cfg, struct stats *st, struct scrape_sink sink);
void scrape_stop(struct scrape *s);
void scrape_add(struct scrape *s, struct pod *p);    /* takes a reference */
void scrape_remove(struct scrape *s, struct pod *p); /* gives it back */

/* --- pure parts, for tests and fuzzers --- */

/* Text exposition format 0.0.4 (and OpenMetrics' differences that occur): one call per sample line. Malformed lines are
 * skipped and counted. Returns how many were malformed. */
struct expo_label {
	struct str name, value; /* value still escaped as in the text */
};
struct expo_sample {
	struct str name;
	unsigned nlabels;
	struct expo_label labels[64];
	double value;
};
unsigned expo_parse(struct str text, void (*sample)(void *arg, const struct expo_sample *s), void *arg);

/* The engine's load out of a metrics page: names of vLLM (v1, v0), SGLang, TRT-LLM, Triton with TRT-LLM or without.
 * <model> selects where one page has several; {NULL, 0}: the first seen. <ret_adapters> may be NULL. */
void metrics_read(struct str text, struct str model, struct pod_sample *ret, enum pod_engine *ret_engine,
		  struct pod_adapters *ret_adapters);

#endif
