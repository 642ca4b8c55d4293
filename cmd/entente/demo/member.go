package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// member is one server process, with what it takes to start it again.
type member struct {
	id         string
	region     *region
	zone       string
	executable string
	reserved   reservation
	api        netip.AddrPort
	endpoint   netip.AddrPort
	operations netip.AddrPort
	// conn is to its admin socket, whether it runs or not.
	conn *client.Client
	child
}

// configuration is the configuration of the demo's members. Lifetimes and intervals are short, so that what takes hours
// in production can be watched; the timing of Raft is the default.
var configuration = template.Must(template.New("member").Parse(`cluster {
  name         = {{.Region}}
  trust_domain = {{.TrustDomain}}
  region       = {{.Region}}
}

member {
  id       = {{.ID}}
  zone     = {{.Zone}}
  data_dir = {{.DataDir}}
  listen   = {{.API}}
}

bundle_endpoint {
  listen       = {{.Endpoint}}
  refresh_hint = "1s"
  profile "https_spiffe" {}
}

authority {
  ca_ttl        = "1h"
  x509_svid_ttl = "1m"
  jwt_svid_ttl  = "1m"
  signing_grace = "1m"
}

federation {
  min_refresh      = "1s"
  peer_min_refresh = "1s"
}

telemetry {
  listen = {{.Operations}}
}
{{if .Join}}
join {
  addresses = [{{.Join}}]
  token     = {{.Token}}
}
{{end}}`))

func (m *member) socket() string     { return filepath.Join(m.dir, "data", "admin.sock") }
func (m *member) configFile() string { return filepath.Join(m.dir, "entente.hcl") }

// configure writes the member's configuration. Without a seed the member forms the cluster.
func (m *member) configure(seed *member, token string) error {
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of %s: %w", m.id, err)
	}
	values := map[string]string{
		"Region": m.region.name, "TrustDomain": m.region.domain.Name(), "ID": m.id, "Zone": m.zone,
		"DataDir": filepath.Join(
			m.dir, "data",
		), "API": m.api.String(), "Endpoint": m.endpoint.String(), "Operations": m.operations.String(),
	}
	if seed != nil {
		file := filepath.Join(m.dir, "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			return fmt.Errorf("write the join token of %s: %w", m.id, err)
		}
		values["Join"], values["Token"] = seed.api.String(), "file:"+file
	}
	for k, v := range values {
		// The name of a folder can contain what is a template in HCL.
		values[k] = strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(v))
	}
	var b bytes.Buffer
	if err := configuration.Execute(&b, values); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", m.id, err)
	}
	if err := os.WriteFile(m.configFile(), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the configuration of %s: %w", m.id, err)
	}
	return nil
}

// start starts the process. It runs until stop or kill, or until the demo ends.
func (m *member) start(arguments ...string) error {
	m.reserved.release()
	return m.child.start(m.id, m.executable, append([]string{"server", "--config", m.configFile()}, arguments...)...)
}

// startOver prepares another start after one that failed, with an empty folder and other ports.
func (m *member) startOver() error {
	if err := os.RemoveAll(m.dir); err != nil {
		return fmt.Errorf("start %s over: %w", m.id, err)
	}
	return m.reserve()
}

// members returns the members of the cluster, as this member lists them.
func (m *member) members(ctx context.Context) (*ententev1.ListMembersResponse, error) {
	return m.conn.Cluster().ListMembers(ctx, &ententev1.ListMembersRequest{})
}

// errEnded means that the process of a member ended.
var errEnded = errors.New("the process ended")

// await polls a condition of the member until it holds, ctx ends, or the process does.
func (m *member) await(ctx context.Context, what string, holds func(context.Context) (bool, error)) error {
	err := poll(ctx, m.gone(), holds)
	if err != nil {
		return fmt.Errorf("wait until %s %s: %w%s", m.id, what, err, m.lastLines())
	}
	return nil
}

const (
	// pollInterval is how often a condition without a notification is checked.
	pollInterval = 50 * time.Millisecond
	// pollTimeout is how long one check may take.
	pollTimeout = 5 * time.Second
)

// poll checks a condition until it holds, ctx ends, or ended is closed. It returns the error of the last check.
func poll(ctx context.Context, ended <-chan struct{}, holds func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	var last error
	for {
		check, cancel := context.WithTimeout(ctx, pollTimeout)
		ok, err := holds(check)
		cancel()
		if ok && err == nil {
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			if last != nil {
				return last
			}
			return context.Cause(ctx)
		case <-ended:
			return errEnded
		case <-tick.C:
		}
	}
}
