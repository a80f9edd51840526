/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a configuration: refused with a message, or read; and what was read is written so that it reads back.
 */
#include <stdlib.h>

#include "config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct buf err = { 0 }, once = { 0 }, again = { 0 };
	struct config *c = config_parse((struct str){ (const char *)data, n }, "fuzz.yaml", &err), *d;

	if (!c) {
		if (buf_len(&err) == 0)
			abort();
	} else {
		if (buf_len(&err) || config_write_yaml(c, &once))
			abort();
		d = config_parse(buf_str(&once), "fuzz.yaml", &err);
		if (!d || config_write_yaml(d, &again) || !str_eq(buf_str(&once), buf_str(&again)))
			abort();
		config_check(d, &err);
		config_free(d);
		config_free(c);
	}
	buf_free(&err);
	buf_free(&once);
	buf_free(&again);
	return 0;
}
