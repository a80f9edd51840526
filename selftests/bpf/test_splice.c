/* SPDX-License-Identifier: Apache-2.0
 * Whole responses through the splice: client, gateway and pod in three network namespaces, real TCP on all four ends,
 * each byte compared. splice_peers.h has the ends, splice_proxy.h the gateway between them.
 */
#include "splice_run.h"

static int setup(void **state)
{
	return run_setup();
}

static int teardown(void **state)
{
	return run_teardown();
}

static void each_framing_at_token_pace_over_ipv4(void **state)
{
	const struct job j = { .family = AF_INET,
			       .streams = 8,
			       .requests = 12,
			       .framings = ALL,
			       .size = 20000,
			       .chunk = 250,
			       .gap_us = 1500 };

	need_env();
	exact(&j, 60);
	assert_spliced(95);
}

static void each_framing_at_token_pace_over_ipv6(void **state)
{
	const struct job j = { .family = AF_INET6,
			       .streams = 8,
			       .requests = 12,
			       .framings = ALL,
			       .size = 20000,
			       .chunk = 250,
			       .gap_us = 1500 };

	need_env();
	exact(&j, 60);
	assert_spliced(95);
}

static void large_bodies(void **state)
{
	const struct job j = {
		.family = AF_INET, .streams = 3, .requests = 6, .framings = ALL, .size = 16 << 20, .chunk = 9000
	};

	need_env();
	exact(&j, 60);
}

static void a_reader_that_stops_costs_the_pod_its_window(void **state)
{
	const struct job j = { .family = AF_INET,
			       .streams = 3,
			       .requests = 3,
			       .framings = ALL,
			       .size = 12 << 20,
			       .chunk = 8000,
			       .stop_ms = 1500 };

	need_env();
	exact(&j, 60);
}

static void a_client_that_sends_while_it_reads(void **state)
{
	const struct job j = { .family = AF_INET,
			       .streams = 4,
			       .requests = 3,
			       .framings = KEPT,
			       .size = 60000,
			       .chunk = 300,
			       .gap_us = 500,
			       .pipeline = 40 };

	need_env();
	exact(&j, 30);
	assert_spliced(90);
}

static void keep_alive_probes_on_idle_streams(void **state)
{
	const struct job j = { .family = AF_INET,
			       .streams = 4,
			       .requests = 1,
			       .framings = ALL,
			       .size = 900,
			       .chunk = 300,
			       .gap_us = 2500000,
			       .keepalive = true };

	need_env();
	exact(&j, 30);
	assert_spliced(100);
}

static void mtu_mix(void **state)
{
	static const unsigned mtu[][2] = { { 1400, 9000 }, { 9000, 1400 }, { 1500, 1280 } };

	need_env();
	for (unsigned i = 0; i < 3; i++) {
		const struct job j = { .family = i ? AF_INET6 : AF_INET,
				       .streams = 3,
				       .requests = 3,
				       .framings = ALL,
				       .size = 300000,
				       .chunk = 6000,
				       .gap_us = 500 };

		sh("ip link set kvc0 mtu %u; ip link set kvp0 mtu %u; nsenter --net=/proc/%d/ns/net ip link set kvc1 "
		   "mtu %u; "
		   "nsenter --net=/proc/%d/ns/net ip link set kvp1 mtu %u",
		   mtu[i][0], mtu[i][1], (int)client_ns, mtu[i][0], (int)pod_ns, mtu[i][1]);
		exact(&j, 30);
		assert_spliced(80);
	}
	sh("ip link set kvc0 mtu 1500; ip link set kvp0 mtu 1500; nsenter --net=/proc/%d/ns/net ip link set kvc1 mtu "
	   "1500; "
	   "nsenter --net=/proc/%d/ns/net ip link set kvp1 mtu 1500",
	   (int)client_ns, (int)pod_ns);
}

static void the_daemon_is_killed(void **state)
{
	need_env();
	survived(AF_INET, 30);
	survived(AF_INET6, 30);
}

static void abandoned(bool fin)
{
	const struct job j = { .family = AF_INET,
			       .streams = 12,
			       .requests = 2,
			       .framings = KEPT,
			       .size = 4000000,
			       .chunk = 250,
			       .gap_us = 1000,
			       .abort_at = 30000,
			       .fin_at_abort = fin };
	unsigned left = 1;

	proxy_start();
	job_wait(job_start(&j), 30);
	for (unsigned ms = 0; ms < 1000 && (left || report->pod_open); ms += 10) {
		usleep(10000);
		left = splices_left() + conns_open();
	}
	proxy_stop();
	assert_int_equal(report->pod_failed, 24);
	assert_int_equal(report->pod_open, 0);
	assert_int_equal(report->proxy_bad, 0);
	assert_int_equal(left, 0);
}

static void a_reset_of_the_client_stops_the_pod(void **state)
{
	need_env();
	abandoned(false);
}

static void a_fin_of_the_client_stops_the_pod(void **state)
{
	need_env();
	abandoned(true);
}

static void truncated(enum fault fault, unsigned framings)
{
	const struct job j = { .family = AF_INET,
			       .streams = 10,
			       .requests = 1,
			       .framings = framings,
			       .size = 100000,
			       .chunk = 500,
			       .gap_us = 1000,
			       .fault = fault };

	need_env();
	proxy_start();
	job_wait(job_start(&j), 30);
	proxy_stop();
	if (getenv("V"))
		fprintf(stderr, "exact %u wrong %u cut %u reset %u closed %u aborted %u\n", report->exact,
			report->wrong, report->cut, report->reset, report->closed, report->aborted);
	assert_int_equal(report->reset, 10);
	assert_int_equal(report->proxy_bad, 0);
	assert_int_equal(splices_left(), 0);
}

static void a_truncated_response_is_reset(void **state)
{
	truncated(FAULT_FIN, KEPT);
}

static void a_reset_of_the_pod_resets_the_client(void **state)
{
	truncated(FAULT_RST, ALL);
}

static void bad_framing_is_reset(void **state)
{
	truncated(FAULT_CHUNK, CHUNKED);
}

static void more_than_two_gigabytes(void **state)
{
	const struct job j = {
		.family = AF_INET, .streams = 2, .requests = 2, .framings = KEPT, .size = 2300000000ULL, .chunk = 30000
	};
	union kvs_row_counts before, after;

	need_env();
	rows_read(skel->maps.kvs_rows, &before);
	exact(&j, 60);
	rows_read(skel->maps.kvs_rows, &after);
	assert_true(after.rebased > before.rebased);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_framing_at_token_pace_over_ipv4),
		cmocka_unit_test(each_framing_at_token_pace_over_ipv6),
		cmocka_unit_test(large_bodies),
		cmocka_unit_test(a_reader_that_stops_costs_the_pod_its_window),
		cmocka_unit_test(a_client_that_sends_while_it_reads),
		cmocka_unit_test(keep_alive_probes_on_idle_streams),
		cmocka_unit_test(mtu_mix),
		cmocka_unit_test(the_daemon_is_killed),
		cmocka_unit_test(a_reset_of_the_client_stops_the_pod),
		cmocka_unit_test(a_fin_of_the_client_stops_the_pod),
		cmocka_unit_test(a_truncated_response_is_reset),
		cmocka_unit_test(a_reset_of_the_pod_resets_the_client),
		cmocka_unit_test(bad_framing_is_reset),
		cmocka_unit_test(more_than_two_gigabytes),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, setup, teardown);
}
