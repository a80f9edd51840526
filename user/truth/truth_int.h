/* SPDX-License-Identifier: Apache-2.0
 * What the files of this module share.
 */
#ifndef KVS_TRUTH_INT_H
#define KVS_TRUTH_INT_H

#include "truth/truth.h"

/* What the answers of a window have in common. */
struct pattern {
	uint32_t n, over, under;
	uint32_t zero;	/* of <over>: nothing was reported */
	uint32_t miss;	/* of <under>: nothing was predicted */
	uint32_t alike; /* of all that are off, those whose reported/predicted is about the mean's */
	uint32_t hits;	/* that are not off, with more than a block */
	uint64_t predicted, reported, both;
};

/* Of the last <last> answers. */
void pattern_of(const struct truth_window *w, uint32_t block, uint32_t last, struct pattern *ret);

enum truth_cause cause_of(const struct truth_row *row, enum truth_kind kind, const struct truth_rule *rule,
			  const struct truth_facts *facts);

#endif
