/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "datapath/datapath.h"

static void switched_off_it_does_nothing_and_says_why(void **state)
{
	struct datapath_opts o = { .mode = "off" };
	char why[DATAPATH_WHY_MAX];
	struct datapath *dp = datapath_open(&o, why);
	struct datapath_counts c;
	struct datapath_pod pod;
	struct buf b = { 0 };
	struct jw w;
	json_t *v;

	assert_non_null(dp);
	assert_false(datapath_kernel(dp));
	assert_string_equal(why, "datapath.mode is off");
	assert_int_equal(net_addr_parse(STR("127.0.0.1:80"), &pod.addr), 0);
	assert_int_equal(datapath_set_pods(dp, &pod, 1), 0);
	assert_int_equal(datapath_refresh(dp), 0);
	assert_int_equal(datapath_counts(dp, &pod.addr, &c), -ENOENT);
	assert_string_equal(datapath_why(dp), "datapath.mode is off");

	jw_init(&w, &b);
	datapath_describe(dp, &w);
	v = json_loadb(buf_data(&b), buf_len(&b), 0, NULL);
	assert_string_equal(json_string_value(json_object_get(v, "carrier")), "relay");
	assert_true(json_is_false(json_object_get(v, "kernel")));
	json_decref(v);
	buf_free(&b);
	datapath_close(dp, true);
}

static void closing_nothing_is_harmless(void **state)
{
	datapath_close(NULL, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(switched_off_it_does_nothing_and_says_why),
		cmocka_unit_test(closing_nothing_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
