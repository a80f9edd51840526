/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "scrape/scrape_int.h"

int model_list_read(struct str body, struct model_list *ret)
{
	json_t *doc = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, NULL);
	json_t *data = json_object_get(doc, "data"), *m;
	size_t i;

	if (!json_is_array(data)) {
		json_decref(doc);
		return -EBADMSG;
	}
	*ret = (struct model_list){ .doc = doc };
	json_array_foreach(data, i, m)
	{
		const char *id = json_string_value(json_object_get(m, "id"));

		if (!id || !*id || ret->n == POD_MODELS_MAX)
			continue;
		ret->name[ret->n] = (char *)id;
		/* Adapters name their base as parent; their root is a folder of their own. */
		if (!json_is_string(json_object_get(m, "parent")))
			ret->root[ret->n] = json_string_value(json_object_get(m, "root"));
		ret->n++;
	}
	return 0;
}

void model_list_free(struct model_list *m)
{
	json_decref(m->doc);
	m->doc = NULL;
}

int version_read(struct str body, char *out, size_t n)
{
	json_t *doc = json_loadb(body.p, body.n, 0, NULL);
	const char *v = json_string_value(json_object_get(doc, "version"));
	int r = v ? 0 : -EBADMSG;

	if (v)
		snprintf(out, n, "%s", v);
	json_decref(doc);
	return r;
}
