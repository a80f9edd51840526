/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as a template, over some variables, with small limits: it ends, with a text, a failure or a refusal that
 * says something; twice the same.
 */
#include <stdlib.h>

#include "base/buf.h"
#include "model/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char vars[] =
	"{\"s\":\"a \\u00e9<\",\"l\":[3,1,\"x\",null,1.5],\"m\":{\"a\":1,\"items\":[0],\"k\":{}},\"t\":true,"
	"\"messages\":[{\"role\":\"user\",\"content\":\"h\\ni\"},{\"role\":\"tool\",\"content\":null}],"
	"\"big\":123456789012345678901234567890}";

static void require(bool ok)
{
	if (!ok)
		abort();
}

static int append(void *ctx, const char *p, size_t n)
{
	return buf_put(ctx, p, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct template_limits limits = { .steps = 1 << 18, .output = 1 << 18, .memory = 8 << 20 };
	struct template_in in = { .variables = STR(vars), .utc = true, .limits = &limits };
	struct buf out[2] = { 0 };
	struct template_error err;
	struct template_work *w;
	struct template *t;
	int r[2];

	t = template_compile((struct str){ (const char *)data, size }, &err);
	require(t || (err.line && err.col && err.text[0]));
	if (!t)
		return 0;
	w = template_work_new();
	for (int i = 0; w && i < 2; i++) {
		r[i] = template_render(t, w, &in, (struct template_sink){ append, &out[i] }, &err);
		require(r[i] == TEMPLATE_OK || err.text[0] || r[i] == TEMPLATE_RAISED);
	}
	require(!w || (r[0] == r[1] && str_eq(buf_str(&out[0]), buf_str(&out[1]))));
	template_work_free(w);
	template_unref(t);
	buf_free(&out[0]);
	buf_free(&out[1]);
	return 0;
}
