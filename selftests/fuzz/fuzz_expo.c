/* SPDX-License-Identifier: Apache-2.0
 * Metrics pages: samples point into the page, what is read makes sense.
 */
#include <math.h>
#include <stdlib.h>

#include "scrape/scrape.h"

struct page {
	struct str text;
};

static void inside(const struct page *p, struct str s)
{
	if (s.n && (s.p < p->text.p || s.p + s.n > p->text.p + p->text.n))
		abort();
}

static void sample(void *arg, const struct expo_sample *s)
{
	inside(arg, s->name);
	for (unsigned i = 0; i < s->nlabels; i++) {
		inside(arg, s->labels[i].name);
		inside(arg, s->labels[i].value);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct page p = { { (const char *)data, n } };
	struct pod_adapters adapters;
	enum pod_engine engine;
	struct pod_sample s;

	expo_parse(p.text, sample, &p);
	metrics_read(p.text, (struct str){ NULL, 0 }, &s, &engine, &adapters);
	if (s.running < 0 || s.waiting < 0 || s.kv_usage < 0 || isinf(s.running) || isinf(s.kv_usage))
		abort();
	return 0;
}
