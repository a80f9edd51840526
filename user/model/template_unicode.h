/* SPDX-License-Identifier: Apache-2.0
 * Private: the shape of the tables that tools/unicode/tables.py writes.
 */
#ifndef KVS_MODEL_TEMPLATE_UNICODE_H
#define KVS_MODEL_TEMPLATE_UNICODE_H

#include <stdint.h>

#define UNI_SEVERAL (1 << 24) /* from here on: a place in uni_several */

struct uni_record {
	uint16_t flags;
	int32_t to[4]; /* upper, lower, title, folded: distance */
};

extern const struct uni_record uni_records[];
extern const uint32_t uni_runs[]; /* first character << 11 | record, ascending; the first run begins at 0 */
extern const unsigned uni_nruns;
extern const uint32_t uni_several[]; /* a count, and so many characters */

#endif
