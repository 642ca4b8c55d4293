package config

import (
	"net"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/ententehq/entente/internal/egress"
)

var (
	telemetrySchema = &hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "listen"}, {Name: "log_level"}, {Name: "log_format"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "traces"}},
	}
	tracesSchema = blockSchema{
		required: []string{"address"}, optional: []string{"ratio", "ca_file", "plain_loopback", "authorization"},
	}
)

// defaultTraceRatio records one trace in a hundred.
const defaultTraceRatio = 0.01

func (d *decoder) telemetry(cfg *Config) {
	b, nested := d.top("telemetry", telemetrySchema)
	cfg.Telemetry = Telemetry{
		Listen:    b.hostPort("listen", defaultOpsListen),
		LogLevel:  b.choice("log_level", "info", "trace", "debug", "info", "warn", "error"),
		LogFormat: b.choice("log_format", "text", "text", "json"),
	}
	for i, t := range nested {
		if i > 0 {
			d.refuse(t.DefRange, "telemetry has two traces blocks; a member exports its traces to one collector")
			return
		}
		traces, _ := d.open("telemetry.traces", within(b.out, "traces"), t.Body, tracesSchema.hcl())
		cfg.Telemetry.Traces = traces.traces()
	}
}

// traces reads the collector of traces.
func (b *block) traces() *Traces {
	t := &Traces{
		Address: b.hostPort("address", ""), Ratio: b.part("ratio", defaultTraceRatio),
		CAFile: b.text("ca_file", ""), Plain: b.boolean("plain_loopback", false),
	}
	if _, given := b.attrs["authorization"]; given {
		secret := b.secret("authorization")
		t.Authorization = &secret
	}
	host, _, err := net.SplitHostPort(t.Address)
	switch {
	case !t.Plain || err != nil:
	case !egress.Loopback(host):
		b.refuse("plain_loopback", "%s is not an address of this machine; a connection to another one is encrypted: "+
			"remove plain_loopback", t.Address)
	case t.CAFile != "":
		b.refuse("ca_file", "plain_loopback makes a connection without TLS; remove one of them")
	}
	return t
}

// part reads a number from 0 to 1.
func (b *block) part(name string, def float64) float64 {
	b.record(name, cty.NumberFloatVal(def))
	v, ok := b.value(name, cty.Number)
	if !ok {
		return def
	}
	b.record(name, v)
	part, _ := v.AsBigFloat().Float64()
	if part < 0 || part > 1 {
		b.refuse(name, "must be a number from 0 to 1")
		return def
	}
	return part
}
