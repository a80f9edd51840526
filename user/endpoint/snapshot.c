/* SPDX-License-Identifier: Apache-2.0
 * From the table to what workers read: one block of memory with the pods, their samples and the routes.
 *
 * Routes are made by sorting claims. A claim says: this name, in this pool, is served by this pod (or by none yet: a
 * configured name), and its text is that of this root. Equal names lie side by side then; their pods become one mask,
 * and if all who gave a root gave the same one it becomes the base, so that aliases of a model share one namespace of
 * the index. An adapter has no root: its text is cached under its own name.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "endpoint/endpoint_int.h"

#define NO_POD UINT_MAX

struct claim {
	const char *model;
	unsigned pool;
	unsigned pod;	  /* index in the snapshot, or NO_POD */
	bool told;	  /* by the pod itself, so that <root> means something */
	const char *root; /* NULL: itself */
};

static int claim_cmp(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int c = strcmp(x->model, y->model);

	return c ? c : (x->pool > y->pool) - (x->pool < y->pool);
}

static bool names_have(const struct pool_names *names, const char *model)
{
	for (unsigned i = 0; i < names->n; i++)
		if (strcmp(names->names[i], model) == 0)
			return true;
	return false;
}

/* The claims of one pod. */
static unsigned pod_claims(const struct pod *p, unsigned index, const struct pool_names *names, struct claim *out)
{
	unsigned n = 0;

	if (!p->nmodels)
		for (unsigned i = 0; i < names->n; i++)
			out[n++] = (struct claim){ .model = names->names[i], .pool = p->pool, .pod = index };
	for (unsigned i = 0; i < p->nmodels; i++)
		if (!names->n || !p->roots[i] || names_have(names, p->models[i]))
			out[n++] = (struct claim){
				.model = p->models[i], .pool = p->pool, .pod = index, .told = true, .root = p->roots[i]
			};
	return n;
}

/* One route out of the claims from <c> on; returns how many it used. */
static unsigned claims_merge(const struct claim *c, unsigned n, struct route *ret)
{
	const char *base = NULL;
	bool agree = true;
	unsigned i;

	*ret = (struct route){ .model = (char *)c->model, .pool = c->pool };
	for (i = 0; i < n && claim_cmp(&c[i], c) == 0; i++) {
		const char *root = c[i].root ? c[i].root : c->model;

		if (c[i].pod != NO_POD)
			ret->pods_mask[c[i].pod / 64] |= UINT64_C(1) << (c[i].pod % 64);
		if (!c[i].told)
			continue;
		agree = agree && (!base || strcmp(base, root) == 0);
		base = root;
	}
	ret->base = (char *)(base && agree ? base : c->model);
	return i;
}

static bool mask_empty(const uint64_t mask[4])
{
	return !(mask[0] | mask[1] | mask[2] | mask[3]);
}

/* Sorted routes into <out>; strings still belong to the claims. A name of several pools goes to the first that has
 * pods for it. */
static unsigned claims_route(struct claim *claims, unsigned n, struct route *out)
{
	unsigned routes = 0;

	if (n)
		qsort(claims, n, sizeof(*claims), claim_cmp);
	for (unsigned i = 0; i < n;) {
		struct route r;

		i += claims_merge(claims + i, n - i, &r);
		if (!routes || strcmp(out[routes - 1].model, r.model) != 0)
			out[routes++] = r;
		else if (mask_empty(out[routes - 1].pods_mask))
			out[routes - 1] = r;
	}
	return routes;
}

/* All claims; *ret_n of them. NULL and errno. */
static struct claim *claims_gather(struct list *pods, const struct pool_names *pools, unsigned npools, unsigned *ret_n)
{
	size_t most = 0;
	unsigned n = 0, index = 0;
	struct claim *claims;

	for (unsigned i = 0; i < npools; i++)
		most += pools[i].n;
	list_for_each (it, pods) {
		const struct pod *p = container_of(it, struct pod, link);

		most += p->nmodels + pools[p->pool].n;
	}
	claims = calloc(most ? most : 1, sizeof(*claims));
	if (!claims)
		return NULL;
	for (unsigned i = 0; i < npools; i++)
		for (unsigned k = 0; k < pools[i].n; k++)
			claims[n++] = (struct claim){ .model = pools[i].names[k], .pool = i, .pod = NO_POD };
	list_for_each (it, pods) {
		const struct pod *p = container_of(it, struct pod, link);

		n += pod_claims(p, index++, &pools[p->pool], claims + n);
	}
	*ret_n = n;
	return claims;
}

/* Copy <s> to *at and move it behind. */
static char *put_str(char **at, const char *s)
{
	size_t n = strlen(s) + 1;
	char *p = memcpy(*at, s, n);

	*at += n;
	return p;
}

static struct snapshot *snapshot_lay_out(struct list *pods, unsigned npods, const struct route *routes,
					 unsigned nroutes)
{
	size_t size = sizeof(struct snapshot) +
		      npods * (sizeof(struct pod *) + sizeof(struct pod_sample) + sizeof(struct pod_pace)) +
		      nroutes * sizeof(struct route);
	struct snapshot *s;
	unsigned i = 0, ndoubts = 0;
	char *at;

	list_for_each (it, pods)
		ndoubts += container_of(it, struct pod, link)->ndoubts;
	size += ndoubts * sizeof(struct doubt);

	for (unsigned k = 0; k < nroutes; k++)
		size += strlen(routes[k].model) + strlen(routes[k].base) + 2;
	s = calloc(1, size);
	if (!s)
		return NULL;
	s->npods = npods;
	s->nroutes = nroutes;
	s->pods = (struct pod **)(void *)(s + 1);
	s->samples = (struct pod_sample *)(void *)(s->pods + npods);
	s->paces = (struct pod_pace *)(void *)(s->samples + npods);
	s->routes = (struct route *)(void *)(s->paces + npods);
	s->doubts = (struct doubt *)(void *)(s->routes + nroutes);
	at = (char *)(s->doubts + ndoubts);
	list_for_each (it, pods) {
		struct pod *p = container_of(it, struct pod, link);

		for (unsigned k = 0; k < p->ndoubts; k++)
			s->doubts[s->ndoubts++] = (struct doubt){ i, p->doubts[k] };
		s->pods[i] = pod_ref(p);
		s->paces[i] = p->pace;
		s->samples[i++] = p->sample;
		s->nlisted += p->nmodels > 0;
	}
	for (unsigned k = 0; k < nroutes; k++) {
		s->routes[k] = routes[k];
		s->routes[k].model = put_str(&at, routes[k].model);
		s->routes[k].base = put_str(&at, routes[k].base);
	}
	return s;
}

struct snapshot *snapshot_build(struct list *pods, const struct pool_names *pools, unsigned npools, uint64_t serial)
{
	struct snapshot *s = NULL;
	unsigned nclaims, npods = 0;
	struct claim *claims = claims_gather(pods, pools, npools, &nclaims);
	struct route *routes;

	if (!claims)
		return NULL;
	list_for_each (it, pods)
		npods++;
	routes = calloc(nclaims ? nclaims : 1, sizeof(*routes));
	if (routes) {
		unsigned nroutes = claims_route(claims, nclaims, routes);

		s = snapshot_lay_out(pods, npods, routes, nroutes);
	}
	if (s)
		s->serial = serial;
	free(routes);
	free(claims);
	return s;
}

void snapshot_free(struct snapshot *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < s->npods; i++)
		pod_unref(s->pods[i]);
	free(s);
}

const struct route *snapshot_route(const struct snapshot *s, struct str model)
{
	unsigned lo = 0, hi = s->nroutes;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		struct str name = str_of(s->routes[mid].model);
		size_t both = name.n < model.n ? name.n : model.n;
		int c = both ? memcmp(name.p, model.p, both) : 0;

		if (c == 0 && name.n == model.n)
			return &s->routes[mid];
		if (c < 0 || (c == 0 && name.n < model.n))
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

unsigned snapshot_any(const struct snapshot *s, unsigned pool, uint64_t mask[4])
{
	unsigned n = 0;

	memset(mask, 0, 4 * sizeof(*mask));
	for (unsigned i = 0; i < s->npods; i++) {
		if (pool != UINT_MAX && s->pods[i]->pool != pool)
			continue;
		mask[i / 64] |= UINT64_C(1) << (i % 64);
		n++;
	}
	return n;
}
