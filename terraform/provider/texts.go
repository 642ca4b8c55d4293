package provider

import (
	"cmp"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// texts describe fields without a comment in the API: by their names, which mean the same in
// every message.
var texts = map[string]string{
	"acknowledgements":  "What that side has acknowledged, by trust domain.",
	"activate_time":     "When it began to sign.",
	"address":           "The address of the instance, `IP:PORT`.",
	"approver":          "Who approved it here.",
	"attempt_time":      "When it was last tried.",
	"authorities":       "The signing authorities.",
	"cluster_id":        "The ID that the cluster was given when it was formed.",
	"cluster_name":      "The name of the cluster in its configuration.",
	"connected":         "Whether the stream is open.",
	"create_time":       "When it was created.",
	"degraded_load":     "The percentage of the load for instances that are degraded.",
	"detail":            "What is wrong, and what to do.",
	"digest":            "The SHA-256 of the content of the bundle.",
	"direction":         "Which side opened the stream.",
	"domains":           "The hosted trust domains.",
	"endpoints":         "The endpoints.",
	"error":             "Why the last attempt failed; empty if it succeeded.",
	"excluded":          "Instances that are left out, with the reason.",
	"freshness":         "The state of the bundle: `fresh`, `bootstrap`, `stale` or `expired`.",
	"health":            "The health: `healthy`, `degraded`, `unhealthy` or `draining`.",
	"id":                "The ID.",
	"join_time":         "When it joined the cluster.",
	"jwt_authorities":   "The number of keys that verify JWT-SVIDs.",
	"jwt_svid_ttl":      "The default and maximum lifetime of JWT-SVIDs.",
	"kind":              "The kind: `x509` or `jwt`.",
	"last_attempt_time": "When the last attempt was made.",
	"last_error":        "Why the last attempt failed; empty if it succeeded.",
	"last_success_time": "When the last attempt succeeded.",
	"leader":            "Whether it leads.",
	"left_out":          "How many were left out.",
	"localities":        "The localities of the priority.",
	"locality":          "The region, the zone and the sub-zone.",
	"member":            "The ID of the member.",
	"members":           "The members of the cluster.",
	"next_attempt_time": "When the next attempt is due.",
	"not_after":         "When its certificate expires.",
	"not_before":        "From when on its certificate is valid.",
	"panic":             "Whether so few instances are available that all of them are used.",
	"pending_addresses": "Addresses that the other side announced and that wait for an approval.",
	"prepare_time":      "When it was made.",
	"priority":          "The priority, from 0 on.",
	"reason":            "Why it is left out.",
	"refresh_hint":      "How often readers of the bundle should fetch it.",
	"refresh_interval":  "The interval at which the bundle is refreshed.",
	"refusal":           "Why the other side refused it; empty if it did not.",
	"refused":           "How many were refused.",
	"region":            "The region.",
	"relationships":     "The relationships, by trust domain.",
	"remote_member":     "The member of the other cluster.",
	"retire_time":       "When it ceased to sign.",
	"revision":          "The revision of the cluster's state: of the last change, or for a list of the read.",
	"revoke_time":       "When it was revoked.",
	"sequence":          "The sequence of the bundle, which rises with every change.",
	"spiffe_id":         "The SPIFFE ID that a caller must expect.",
	"state":             "The state.",
	"sub_zone":          "The part of the zone.",
	"suspender":         "Who suspended it.",
	"taint_time":        "When it was tainted.",
	"time":              "When it happened.",
	"trust_domain":      "The trust domain.",
	"voter":             "Whether it has a vote.",
	"weight":            "The share among the instances of the locality.",
	"x509_authorities":  "The number of certificates that verify X509-SVIDs.",
	"zone":              "The zone.",
}

// described returns what a field is for the documentation of a data source.
func described(f protoreflect.FieldDescriptor) string {
	return cmp.Or(comments[string(f.FullName())], textOf(f, ""),
		texts[string(f.Name())])
}
