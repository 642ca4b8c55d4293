package hub

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Config lists what the types of this package depend on. All fields but Registerer are required.
type Config struct {
	Store *raftstore.Store
	// Home is the name of the home trust domain of this cluster.
	Home string
	// Mirror holds the relationships and attestations in memory.
	Mirror *mirror.Mirror
	// Trust decides which domains are hosted, and supplies the entries of the map that this cluster serves.
	Trust *trust.Index
	// Intake reads what a decision depends on, writes audit lines and raises alarms.
	Intake       *intake.Intake
	Observations *observation.Section
	Audit        audit.Recorder
	// Client configures the client of hubs' endpoints.
	Client endpoint.ClientConfig
	// Route is the way to hubs whose relationship names none.
	Route egress.Route
	// Endpoint returns the endpoint of a relationship to use now.
	Endpoint func(name string, rel *relationship.Relationship) endpoint.Remote
	// Covers reports whether a stream of a peer keeps a map up to date, LogAllowed whether one more line about what a
	// peer sent may be logged, and MapChanged is called after this cluster's map has changed.
	Covers     func(home, name string) bool
	LogAllowed func(home string) bool
	MapChanged func()
	// Unreadable reports a row that this version cannot read. The row is skipped.
	Unreadable func(error)
	Log        hclog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// The actions in the audit log, and their details.
const (
	actionRefuseMap = "refuse bundle map"
	actionWithdraw  = "withdraw bundle"
	detailWithdrawn = "the hub %s attests it no more"
	detailOfHub     = "by the hub %s: "
	detailRefused   = "by the hub %s: %s"
)
