/* SPDX-License-Identifier: Apache-2.0 */
#include "unescape.h"

#include "http/json.h"

int unescape(struct str raw, struct buf *out)
{
	struct json_val v = { .kind = JSON_STR, .escaped = true, .raw = raw };

	return json_unescape(&v, out);
}
