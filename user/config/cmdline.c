/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config_int.h"

int pod_from_text(struct config_pod *p, const char *spec, struct buf *why)
{
	const struct option *o = option_find(&section_pod, STR("address"));
	char *copy = str_dup(str_of(spec)), *save = NULL, *part;
	int r = 0;

	if (!copy)
		return -ENOMEM;
	part = strtok_r(copy, ",", &save);
	r = value_set(o, p, part ? part : "", why);
	while (r == 0 && (part = strtok_r(NULL, ",", &save))) {
		char *value = strchr(part, '=');
		struct buf one = { 0 };

		if (value)
			*value++ = '\0';
		o = option_find(&section_pod, str_of(part));
		if (!value) {
			buf_printf(why, "\"%.100s\" has no value: write KEY=VALUE", part);
			r = -EINVAL;
		} else if (!o) {
			buf_printf(why, "\"%.100s\" is an unknown key", part);
			suggest_option(why, &section_pod, STR(""), part);
			r = -EINVAL;
		} else {
			r = value_set(o, p, value, &one);
			if (r == -EINVAL)
				buf_printf(why, "%s: %.*s", part, (int)buf_len(&one), buf_data(&one));
		}
		buf_free(&one);
	}
	free(copy);
	return r;
}

int config_add_listener(struct config *c, const char *address, struct buf *err)
{
	const struct option *o = option_find(&section_root, STR("listeners"));
	struct config_full *f = (struct config_full *)c;
	struct config_listener *l;
	struct buf why = { 0 };
	int r;

	if (!ok_listen(address, &why)) {
		buf_printf(err, "listener: %.*s\n", (int)buf_len(&why), buf_data(&why));
		buf_free(&why);
		return -EINVAL;
	}
	l = f->default_listener ? c->listeners : list_grow(o, c);
	if (!l)
		return -ENOMEM;
	r = value_set(option_find(&section_listener, STR("address")), l, address, &why);
	f->default_listener = f->default_listener && r;
	return r;
}

int config_add_pod(struct config *c, const char *spec, struct buf *err)
{
	const struct option *pools = option_find(&section_root, STR("pools"));
	const struct option *pods = option_find(&section_pool, STR("discovery.static"));
	struct config_pod pod = { 0 }, *slot;
	struct buf why = { 0 };
	struct config_pool *p;
	int r = section_init(&section_pod, &pod);

	if (r == 0)
		r = pod_from_text(&pod, spec, &why);
	if (r)
		goto err;
	p = c->npools ? &c->pools[0] : list_grow(pools, c);
	slot = p && p->npods < CONFIG_LIST_MAX ? list_grow(pods, p) : NULL;
	if (!slot) {
		r = -ENOMEM;
		goto err;
	}
	section_free(&section_pod, slot);
	*slot = pod;
	if (!pod_twice(p->pods, p->npods))
		return 0;
	p->npods--;
	buf_puts(&why, "is listed twice: keep one");
	r = -EINVAL;
err:
	section_free(&section_pod, &pod);
	if (r == -EINVAL)
		buf_printf(err, "pod \"%.200s\": %.*s\n", spec, (int)buf_len(&why), buf_data(&why));
	buf_free(&why);
	return r;
}

/* Where the key leads: "pools[0].limits.queue" to the row of limits.queue and the first pool. */
static const struct option *resolve(struct config *c, struct str key, void **ret_base)
{
	const struct section *s = &section_root;
	void *base = c;
	const char *open;

	while ((open = memchr(key.p, '[', key.n))) {
		const char *close = memchr(key.p, ']', key.n);
		const struct option *o = option_find(s, (struct str){ key.p, (size_t)(open - key.p) });
		uint64_t i;
		unsigned n;
		char *v;

		if (!close || close < open || !o || o->type != OPT_LIST ||
		    str_u64((struct str){ open + 1, (size_t)(close - open - 1) }, &i) || close + 1 >= key.p + key.n ||
		    close[1] != '.')
			return NULL;
		v = list_at(o, base, &n);
		/* One behind the end is a new one, once it is sure that the key exists. */
		if (i > n ||
		    (i == n && !option_find(o->list, (struct str){ close + 2, key.n - (size_t)(close + 2 - key.p) })))
			return NULL;
		base = i == n ? list_grow(o, base) : v + i * o->list->size;
		if (!base)
			return NULL;
		s = o->list;
		key.n -= (size_t)(close + 2 - key.p);
		key.p = close + 2;
	}
	*ret_base = base;
	return option_find(s, key);
}

/* The key is known as far as its words are; of the first that is not, what was meant? */
static void unknown(const struct config *c, const char *key, struct buf *err)
{
	const struct section *s = &section_root;
	const void *base = c; /* NULL: an element that would be new */
	char prefix[128] = "", word[128], path[160];
	const char *at = key;

	for (;;) {
		size_t n = strcspn(at, ".[");
		const struct option *o;
		int len = snprintf(path, sizeof(path), "%s%.*s", prefix, (int)(n < 100 ? n : 100), at);

		if (len < 0 || (size_t)len >= sizeof(prefix) - 1)
			break;
		o = option_find(s, str_of(path));
		if (o && o->type == OPT_LATER) {
			buf_printf(err, "%.100s: not supported yet by this version\n", key);
			return;
		}
		if (o && o->type == OPT_LIST) {
			const char *close = strchr(at + n, ']');
			unsigned have = 0;
			const char *v = base ? list_at(o, base, &have) : NULL;
			uint64_t i;

			if (at[n] != '[' || !close || close[1] != '.' ||
			    str_u64((struct str){ at + n + 1, (size_t)(close - at - n - 1) }, &i)) {
				buf_printf(err, "%.100s: %s is a list, write %s[0].KEY\n", key, path, path);
				return;
			}
			if (i > have) {
				buf_printf(err, "%.100s: %s has %u elements, the next one is %s[%u]\n", key, path, have,
					   path, have);
				return;
			}
			base = v && i < have ? v + i * o->list->size : NULL;
			s = o->list;
			prefix[0] = '\0';
			at = close + 2;
			continue;
		}
		if (at[n] == '.' && option_parent(s, str_of(path))) {
			snprintf(prefix, sizeof(prefix), "%s.", path);
			at += n + 1;
			continue;
		}
		snprintf(word, sizeof(word), "%.*s", (int)(n < 100 ? n : 100), at);
		buf_printf(err, "%.*s: unknown key", (int)(at + n - key), key);
		if (option_parent(s, str_of(path))) {
			snprintf(prefix, sizeof(prefix), "%s.", path);
			word[0] = '\0';
		}
		suggest_option(err, s, str_of(prefix), word);
		buf_puts(err, "\n");
		return;
	}
	buf_printf(err, "%.100s: unknown key\n", key);
}

int config_set(struct config *c, const char *key, const char *value, struct buf *err)
{
	struct buf why = { 0 };
	void *base = NULL;
	const struct option *o = resolve(c, str_of(key), &base);
	int r = -EINVAL;

	if (!o) {
		unknown(c, key, err);
		return -EINVAL;
	}
	r = value_set(o, base, value, &why);
	if (r == -EINVAL)
		buf_printf(err, "%.100s: %.*s\n", key, (int)buf_len(&why), buf_data(&why));
	buf_free(&why);
	return r;
}

int config_set_pair(struct config *c, const char *pair, struct buf *err)
{
	const char *eq = strchr(pair, '=');
	char *key;
	int r;

	if (!eq) {
		buf_printf(err, "--set %s: KEY=VALUE is wanted\n", pair);
		return -EINVAL;
	}
	key = str_dup((struct str){ pair, (size_t)(eq - pair) });
	if (!key)
		return -ENOMEM;
	r = config_set(c, key, eq + 1, err);
	free(key);
	return r;
}
