/* SPDX-License-Identifier: Apache-2.0
 * What the policies share: the ranking of rows and the parts that the default policy borrows from others.
 */
#ifndef KVS_SCHED_SCHED_INT_H
#define KVS_SCHED_SCHED_INT_H

#include "sched/sched.h"

extern const struct sched_ops sched_default, sched_round_robin, sched_random, sched_least_request, sched_p2c,
	sched_session_hash;

/* The best rows seen so far: least cost first, of equal costs the lesser key. */
struct ranking {
	unsigned n;
	uint16_t row[SCHED_RANKED_MAX];
	double cost[SCHED_RANKED_MAX], key[SCHED_RANKED_MAX];
};

/* Is <cost> worth a draw of its key? */
static inline bool ranking_wants(const struct ranking *r, double cost)
{
	return r->n < SCHED_RANKED_MAX || cost <= r->cost[r->n - 1];
}

void ranking_put(struct ranking *r, uint16_t row, double cost, double key);
void ranking_out(const struct ranking *r, struct sched_out *out);

static inline double row_weight(const struct sched_row *r)
{
	return r->weight ? r->weight : 1;
}

/* Exponentially distributed with rate <weight>: of several rows, each has the least with a chance that is its share of
 * the weights. <bits> are random, or a hash where the draw must be the same each time. */
double weighted_key(uint64_t bits, double weight);

/* Rank all rows by their costs, equal ones at random in proportion to their weights. */
void sched_rank(const struct sched_row *rows, unsigned n, struct rng *rng, struct sched_out *out);

/* Requests on it per unit of weight, with the one to come. */
static inline double row_load(const struct sched_row *r)
{
	return (r->n + 1.0) / row_weight(r);
}

/* policy_session_hash.c: costs and ranking for <hash>, which is not 0. */
void session_rank(uint64_t hash, struct sched_row *rows, unsigned n, struct rng *rng, struct sched_out *out);

#endif
