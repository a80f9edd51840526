/* SPDX-License-Identifier: Apache-2.0
 * Private to scrape/.
 */
#ifndef KVS_SCRAPE_SCRAPE_INT_H
#define KVS_SCRAPE_SCRAPE_INT_H

#include "scrape/scrape.h"

/* expo_parse for names that are wanted: most of a page is not, and what is not is not looked at further. */
unsigned expo_each(struct str text, bool (*want)(struct str name),
		   void (*sample)(void *arg, const struct expo_sample *s), void *arg);

/* GET /v1/models: names, and of base models the root (NULL: an adapter, or the engine says none). Strings point into
 * <doc>; free with model_list_free. 0 or -EBADMSG. */
struct model_list {
	void *doc;
	unsigned n;
	char *name[POD_MODELS_MAX];
	const char *root[POD_MODELS_MAX];
};
int model_list_read(struct str body, struct model_list *ret);
void model_list_free(struct model_list *m);

/* GET /version of vLLM: {"version": "0.32.0"}. 0 or -EBADMSG. */
int version_read(struct str body, char *out, size_t n);

#endif
