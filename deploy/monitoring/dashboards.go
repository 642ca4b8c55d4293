package monitoring

import "fmt"

// all restricts to the clusters that are chosen on the dashboard.
const all = `cluster=~"$cluster"`

// each returns the series of a metric.
func each(metric string) string { return metric + "{" + all + "}" }

// total and highest return the sum and the maximum of the series with the same labels.
func total(by, metric string) string   { return fmt.Sprintf("sum by (%s) (%s)", by, each(metric)) }
func highest(by, metric string) string { return fmt.Sprintf("max by (%s) (%s)", by, each(metric)) }

// perSecond returns how fast a counter rises.
func perSecond(by, metric string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[5m]))", by, each(metric))
}

// slowest returns the 99th percentile of a histogram.
func slowest(metric string) string {
	return "histogram_quantile(0.99, " + perSecond("cluster, le", metric+"_bucket") + ")"
}

// Dashboards returns the dashboards.
func Dashboards() []Dashboard {
	one := func(title, about, unit, expr, legend string) Panel {
		return Panel{title, about, unit, []Query{{expr, legend}}}
	}
	return []Dashboard{
		{"cluster", "Entente: cluster", []Panel{
			one("Leaders", "One for each cluster. Without a leader nothing can be changed.", "short",
				total("cluster", "entente_raftstore_leader"), "{{cluster}}"),
			{"Members", "Those that exist, and those that the leader hears.", "short", []Query{
				{highest("cluster", "entente_membership_members"), "{{cluster}} members"},
				{highest("cluster", "entente_membership_alive_members"), "{{cluster}} alive"},
			}},
			one("Changes a second", "Commands by result.", "ops",
				perSecond("cluster, result", "entente_raftstore_commands_total"), "{{cluster}} {{result}}"),
			one("Time to commit (p99)", "", "s", slowest("entente_raftstore_commit_seconds"), "{{cluster}}"),
			one("Disk write (median)", "Above 0.25 s an alert fires.", "s",
				each("entente_raftstore_disk_median_seconds"), "{{instance}}"),
			one("Disk free", "", "percentunit", each("entente_raftstore_disk_free_ratio"), "{{instance}}"),
			one("Waits before an election", "Follows the load of machines and network.", "s",
				each("entente_raftstore_election_timeout_seconds"), "{{instance}}"),
			one("Distance of clocks", "Signing stops at 300 s.", "s",
				each("entente_membership_clock_distance_seconds"), "{{instance}}"),
			one("Revision", "Members that lag have a lower one.", "short", each("entente_raftstore_revision"),
				"{{instance}}"),
			one("Refused for load", "Calls above the limits of a member or of a caller's share.", "ops",
				perSecond("cluster, load, limit", "entente_access_overload_total"),
				"{{cluster}} {{load}} {{limit}}"),
			one("Connections", "", "short", total("cluster, protocol", "entente_port_connections"),
				"{{cluster}} {{protocol}}"),
			one("Memory", "", "bytes", `process_resident_memory_bytes{job="entente", `+all+`}`, "{{instance}}"),
		}},
		{"federation", "Entente: federation", []Panel{
			one("Freshness by peer", "1 fresh, 2 stale, 3 expired.", "short",
				highest("cluster, trust_domain", "entente_federation_bundle_freshness"),
				"{{cluster}} of {{trust_domain}}"),
			one("Age of bundles", "Since the content changed.", "s",
				highest("cluster, trust_domain", "entente_federation_bundle_age_seconds"),
				"{{cluster}} of {{trust_domain}}"),
			one("Unconfirmed for", "Since a fetch or a stream confirmed the bundle.", "s",
				highest("cluster, trust_domain", "entente_federation_bundle_unconfirmed_seconds"),
				"{{cluster}} of {{trust_domain}}"),
			one("Lag of sequences", "What a domain publishes, less what a cluster has of it.", "short",
				`max by (trust_domain) (entente_authority_bundle_sequence) - on (trust_domain) group_right () `+
					highest("cluster, trust_domain", "entente_federation_bundle_sequence"),
				"{{cluster}} of {{trust_domain}}"),
			one("Fetches", "By result.", "ops",
				perSecond("cluster, result", "entente_federation_fetches_total"), "{{cluster}} {{result}}"),
			one("Time of a fetch (p99)", "", "s", slowest("entente_federation_fetch_duration_seconds"),
				"{{cluster}}"),
			one("Streams", "", "short", total("cluster, direction", "entente_federation_streams"),
				"{{cluster}} {{direction}}"),
			one("Streams that ended", "By reason.", "ops",
				perSecond("cluster, reason", "entente_federation_streams_ended_total"), "{{cluster}} {{reason}}"),
			one("Bundles by stream", "Refusals have a result of their own.", "ops",
				perSecond("cluster, result", "entente_federation_stream_bundles_total"), "{{cluster}} {{result}}"),
			one("Requests at the bundle endpoint", "By status.", "ops",
				perSecond("cluster, code", "entente_bundle_endpoint_requests_total"), "{{cluster}} {{code}}"),
		}},
		{"authorities", "Entente: authorities", []Panel{
			one("End of authorities", "By member.", "s",
				`entente_authority_not_after_timestamp_seconds{state="active", `+all+`} - time()`,
				"{{instance}} {{trust_domain}} {{kind}}"),
			one("Alarms", "late: a successor is overdue; none: no active authority; silent: the member may not sign.",
				"short",
				total("cluster, trust_domain, kind, alarm", "entente_authority_alarm"),
				"{{cluster}} {{trust_domain}} {{kind}} {{alarm}}"),
			one("Age of hosted bundles", "", "s",
				highest("cluster, trust_domain", "entente_authority_bundle_age_seconds"),
				"{{cluster}} {{trust_domain}}"),
			one("Sequence of hosted bundles", "Rises by one for every change of content.", "short",
				highest("cluster, trust_domain", "entente_authority_bundle_sequence"),
				"{{cluster}} {{trust_domain}}"),
			one("Failures", "Of the loops that prepare, publish and retire.", "ops",
				perSecond("cluster, task", "entente_authority_failures_total"), "{{cluster}} {{task}}"),
			one("Certificates that zlint looked at", "", "ops",
				perSecond("cluster, certificate, result", "entente_authority_zlint_certificates_total"),
				"{{cluster}} {{certificate}} {{result}}"),
		}},
		{"issuing", "Entente: issuing", []Panel{
			one("SVIDs a second", "By kind and result.", "ops",
				perSecond("cluster, kind, result", "entente_authority_signatures_total"),
				"{{cluster}} {{kind}} {{result}}"),
			one("Calls a second", "By gRPC code.", "ops",
				perSecond("cluster, code", "entente_access_calls_total"), "{{cluster}} {{code}}"),
			one("Denials", "By reason.", "ops",
				perSecond("cluster, reason", "entente_access_denials_total"), "{{cluster}} {{reason}}"),
			one("Limited callers", "Requests above issue_rate.", "ops",
				perSecond("cluster, kind", "entente_authority_rate_limited_total"), "{{cluster}} {{kind}}"),
			one("Audit lines", "What cannot be audited is not signed.", "ops",
				perSecond("cluster, result", "entente_access_audit_lines_total"), "{{cluster}} {{result}}"),
			one("Refused connections", "By reason.", "ops",
				perSecond("cluster, reason", "entente_port_refused_total"), "{{cluster}} {{reason}}"),
		}},
		{"routing", "Entente: routing", []Panel{
			one("Hints a second", "By result.", "ops",
				perSecond("cluster, result", "entente_routing_hints_total"), "{{cluster}} {{result}}"),
			{"Instances", "Those of this cluster, and those of others.", "short", []Query{
				{highest("cluster", "entente_routing_instances"), "{{cluster}} own"},
				{highest("cluster", "entente_routing_imported_instances"), "{{cluster}} imported"},
				{highest("cluster", "entente_routing_kept_instances"), "{{cluster}} kept without leases"},
			}},
			one("Leases", "", "short", highest("cluster", "entente_routing_leases"), "{{cluster}}"),
			one("Renewals of leases", "By result.", "ops",
				perSecond("cluster, result", "entente_routing_renewals_total"), "{{cluster}} {{result}}"),
			one("Imported sets", "Refusals have a result of their own.", "ops",
				perSecond("cluster, result", "entente_routing_import_sets_total"), "{{cluster}} {{result}}"),
			one("xDS streams", "", "short", total("cluster", "entente_routing_xds_streams"), "{{cluster}}"),
		}},
		{"agents", "Entente: agents", []Panel{
			one("Entries without an SVID", "", "short",
				`sum by (job, instance) (entente_agent_entries - entente_agent_svids)`,
				"{{instance}}"),
			one("End of the agents' own SVIDs", "", "s", `entente_agent_expiry_seconds - time()`, "{{instance}}"),
			one("Attestations of workloads", "By result.", "ops",
				`sum by (result) (rate(entente_agent_attestations_total[5m]))`, "{{result}}"),
			one("Messages to workloads", "By method.", "ops",
				`sum by (method) (rate(entente_agent_messages_total[5m]))`,
				"{{method}}"),
		}},
	}
}
