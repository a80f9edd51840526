/* SPDX-License-Identifier: Apache-2.0
 * What the filters share; methods take their numbers by arg_int too.
 */
#ifndef KVS_MODEL_TEMPLATE_FILTER_H
#define KVS_MODEL_TEMPLATE_FILTER_H

#include "model/template_int.h"

#define FILTER(name) static struct val name(struct run *r, struct val v, struct val *arg, const struct args *a)

bool arg_true(struct run *r, struct val v, bool missing);
int64_t arg_int(struct run *r, struct val v, int64_t missing);
const struct filter *template_filter_find_seq(struct str name);

#endif
