/* SPDX-License-Identifier: Apache-2.0
 * kvsteer index …
 */
#include <stdlib.h>

#include "agent/commands.h"

#define LOOKUP_HITS 512

enum ctl_code cmd_index_stats(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	struct index_stats x;

	index_stats(a->index, &x);
	jw_obj(w);
	jw_ku64(w, "nodes", x.nodes);
	jw_ku64(w, "keys", x.keys);
	jw_ku64(w, "bytes", x.bytes);
	jw_ku64(w, "max_bytes", x.max_bytes);
	jw_ku64(w, "stored", x.stored);
	jw_ku64(w, "removed", x.removed);
	jw_ku64(w, "cleared", x.cleared);
	jw_ku64(w, "unknown_parent", x.unknown_parent);
	jw_ku64(w, "evicted", x.evicted);
	jw_ku64(w, "speculated", x.speculated);
	jw_ku64(w, "expired", x.expired);
	jw_ku64(w, "unreachable", x.unreachable);
	jw_end_obj(w);
	return CTL_OK;
}

static const struct pod *pod_of_holder(struct agent *a, unsigned holder)
{
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		for (unsigned i = 0; i < p->spec.ranks; i++)
			if (p->holder[i] == holder)
				return p;
	}
	return NULL;
}

enum ctl_code cmd_index_lookup(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	json_t *text = json_object_get(args, "text");
	const char *model = json_string_value(json_object_get(args, "model"));
	struct index_hit *hits;
	unsigned n;

	if (!json_is_string(text)) {
		buf_puts(err, "\"text\" is missing: the prompt as the engine tokenizes it");
		return CTL_USAGE;
	}
	if (!model) { /* the one that the pods serve */
		struct list *pods = endpoints_pods(a->endpoints);

		model = list_empty(pods) ? "" : agent_base_name(a, container_of(pods->next, struct pod, link));
	}
	hits = calloc(LOOKUP_HITS, sizeof(*hits));
	if (!hits) {
		buf_puts(err, "out of memory");
		return CTL_FAILED;
	}
	n = proxy_lookup(&a->shared, a->reader, str_of(model),
			 (struct str){ json_string_value(text), json_string_length(text) }, hits, LOOKUP_HITS);
	jw_arr(w);
	for (unsigned i = 0; i < n; i++) {
		const struct pod *p = pod_of_holder(a, hits[i].holder);

		if (!p)
			continue;
		jw_obj(w);
		jw_kstr(w, "pod", p->name);
		jw_ku64(w, "tokens", hits[i].tokens);
		jw_ku64(w, "cpu_tokens", hits[i].in_tier[TIER_CPU]);
		jw_ku64(w, "disk_tokens", hits[i].in_tier[TIER_DISK]);
		jw_ku64(w, "blocks", hits[i].blocks);
		jw_ku64(w, "bytes", hits[i].bytes);
		jw_kbool(w, "exact", hits[i].exact);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	free(hits);
	return CTL_OK;
}
