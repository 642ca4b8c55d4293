package e2e

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// envoyBinary returns the Envoy that 'make envoy' installs, or that of the machine.
func envoyBinary(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../.tools/envoy")
	require.NoError(t, err)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	path, err = exec.LookPath("envoy")
	if err != nil {
		require.Empty(t, os.Getenv("CI"), "Envoy is missing, and in CI nothing is left out: run 'make envoy'")
		t.Skip("left out: needs Envoy, which 'make envoy' installs")
	}
	return path
}

// envoy starts Envoy with a bootstrap file, and waits until it listens at an address.
func (m *mesh) envoy(binary, name, bootstrap, listens string) *program {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "envoy.json")
	require.NoError(m.t, os.WriteFile(file, []byte(bootstrap), 0o600))
	p := start(m.t, "envoy "+name, exec.Command(binary, "-c", file, "--disable-hot-restart", "--concurrency", "1",
		"--log-level", "warning"))
	eventually(m.t, "envoy "+name+" listens", func() error {
		conn, err := net.Dial("tcp", listens)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return p
}

// serving is the bootstrap of an Envoy that answers all requests with a text, to one caller alone. It has its
// certificate and the bundles of all domains from an agent, in the configuration that Envoy has for SPIRE.
func serving(t *testing.T, socket, id, caller, address, text string) string {
	t.Helper()
	type object = map[string]any
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	const extensions = "type.googleapis.com/envoy.extensions."
	secret := func(name string) object {
		return object{"name": name, "sds_config": object{
			"resource_api_version": "V3",
			"api_config_source": object{
				"api_type": "GRPC", "transport_api_version": "V3",
				"grpc_services": []object{{"envoy_grpc": object{"cluster_name": "agent"}}},
			},
		}}
	}
	context := object{
		"@type": extensions + "transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": true,
		"common_tls_context": object{
			"tls_certificate_sds_secret_configs": []object{secret(id)},
			"combined_validation_context": object{
				"default_validation_context": object{"match_typed_subject_alt_names": []object{{
					"san_type": "URI", "matcher": object{"exact": caller},
				}}},
				"validation_context_sds_secret_config": secret("ALL"),
			},
		},
	}
	manager := object{
		"@type":       extensions + "filters.network.http_connection_manager.v3.HttpConnectionManager",
		"stat_prefix": "in",
		// Connections are made again all the time, so that each rotation is met by new ones.
		"common_http_protocol_options": object{"max_connection_duration": "0.3s"},
		"http_filters": []object{{
			"name":         "envoy.filters.http.router",
			"typed_config": object{"@type": extensions + "filters.http.router.v3.Router"},
		}},
		"route_config": object{"virtual_hosts": []object{{"name": "in", "domains": []string{"*"}, "routes": []object{{
			"match": object{"prefix": "/"},
			"response_headers_to_add": []object{{"header": object{
				"key": callerHeader, "value": "%DOWNSTREAM_PEER_FINGERPRINT_256%",
			}}},
			"direct_response": object{"status": 200, "body": object{"inline_string": text}},
		}}}}},
	}
	config, err := json.Marshal(object{
		"node": object{"id": text, "cluster": "servers"},
		"static_resources": object{
			"listeners": []object{{
				"name":    "in",
				"address": object{"socket_address": object{"address": host, "port_value": number}},
				"filter_chains": []object{{
					"transport_socket": object{"name": "envoy.transport_sockets.tls", "typed_config": context},
					"filters": []object{{
						"name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
					}},
				}},
			}},
			"clusters": []object{{
				"name": "agent", "type": "STATIC", "connect_timeout": "2s",
				"typed_extension_protocol_options": object{httpOptions: object{
					"@type":                "type.googleapis.com/" + httpOptions,
					"explicit_http_config": object{"http2_protocol_options": object{}},
				}},
				"load_assignment": object{"cluster_name": "agent", "endpoints": []object{{"lb_endpoints": []object{{
					"endpoint": object{"address": object{"pipe": object{"path": socket}}},
				}}}}},
			}},
		},
	})
	require.NoError(t, err)
	return string(config)
}

// callerHeader is the header in which a server returns the SHA-256 of the certificate of its caller.
const callerHeader = "x-caller"

// requests are sent to a service through an Envoy, 200 a second.
type requests struct {
	outbound, service string
	client            http.Client

	mu     sync.Mutex
	counts map[string]int
	failed []string
	caller string // the certificate with which the last request arrived
}

func (r *requests) send(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.outbound+"/", nil)
	if err != nil {
		return "", err
	}
	request.Host = r.service
	answer, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	r.mu.Lock()
	r.caller = answer.Header.Get(callerHeader)
	r.mu.Unlock()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// run sends requests until ctx ends.
func (r *requests) run(ctx context.Context) {
	tick := time.NewTicker(time.Second / 200)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		text, err := r.send(ctx)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		if err != nil {
			r.failed = append(r.failed, err.Error())
		} else {
			r.counts[text]++
		}
		r.mu.Unlock()
	}
}

// next returns what answers the next 100 requests.
func (r *requests) next(t *testing.T) (counts map[string]int) {
	t.Helper()
	r.mu.Lock()
	r.counts = map[string]int{}
	r.mu.Unlock()
	eventually(t, "100 requests are answered", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		counts = map[string]int{}
		n := 0
		for text, c := range r.counts {
			counts[text], n = c, n+c
		}
		if len(r.failed) > 0 {
			t.Fatalf("%d requests failed: %q", len(r.failed), r.failed[:min(3, len(r.failed))])
		}
		if n < 100 {
			return fmt.Errorf("%d of 100", n)
		}
		return nil
	})
	return counts
}

// calledBy returns the certificate with which the last request arrived.
func (r *requests) calledBy() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.caller
}

func (r *requests) goTo(t *testing.T, text string) {
	t.Helper()
	eventually(t, "requests go to "+text, func() error {
		if counts := r.next(t); counts[text] < 100 || len(counts) != 1 {
			return fmt.Errorf("they go to %v", counts)
		}
		return nil
	})
}

// signerOf returns the key ID of the authority that signed the certificate of a server, and how the server refuses a
// caller without a certificate.
func signerOf(t *testing.T, address string) (issuer string, refusal error) {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is looked at only
	require.NoError(t, err)
	defer conn.Close()
	leaf := conn.ConnectionState().PeerCertificates[0]
	_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, refusal = conn.Read(make([]byte, 1))
	return hex.EncodeToString(leaf.AuthorityKeyId), refusal
}

// rotateRoot replaces the root of a cluster whose server listens at an address: the new one takes over, what the old
// authority has signed is replaced, and the old root leaves the bundle. replaced waits for what else it has signed.
func rotateRoot(t *testing.T, c *cluster, serves string, replaced func()) {
	t.Helper()
	p := c.members[0]
	old := everySigner(t, c)[0]
	was, refusal := signerOf(t, serves)
	require.Error(t, refusal, "a caller without a certificate")
	p.command("authority", "rotate", c.domain, "--anchors")
	eventually(t, "the new authority signs", func() error {
		if now := activeOf(t, p); len(now) != 1 || now[0].GetKeyId() == old.GetKeyId() {
			return fmt.Errorf("%v", now)
		}
		return nil
	})
	p.command("authority", "taint", old.GetId(), "--yes")
	eventually(t, "the certificate of the server is signed by the new one", func() error {
		if now, _ := signerOf(t, serves); now == was {
			return fmt.Errorf("it is signed by %s", now)
		}
		return nil
	})
	replaced()
	p.command("authority", "revoke", "--anchor", old.GetKeyId(), "--yes")
}

// TestEnvoys has two Envoys in two trust domains call each other: routes and endpoints by xDS, and certificates by SDS,
// from the agents of their nodes. No request fails while each root is replaced, nor while the call moves to the other
// domain and back.
func TestEnvoys(t *testing.T) {
	binary := envoyBinary(t)
	m := newMesh(t)
	ports := freePorts(t, 3)
	near, far, outbound := ports[0], ports[1], ports[2]
	caller := "spiffe://" + m.eu.domain + "/caller"
	m.grant(m.eu, "/caller")
	eu := agent(t, m.eu, "node-1", []string{m.eu.members[0].api}, caller, "spiffe://"+m.eu.domain+"/greeter/a")
	us := agent(t, m.us, "node-1", []string{m.us.members[0].api}, "spiffe://"+m.us.domain+"/greeter/a")
	nearEnvoy := m.envoy(binary, "near",
		serving(t, eu, "spiffe://"+m.eu.domain+"/greeter/a", caller, near, "near"), near)
	m.envoy(binary, "far", serving(t, us, "default", caller, far, "far"), far)
	m.register(m.eu, "a", near, "healthy")
	m.register(m.us, "a", far, "healthy")
	m.envoy(binary, "caller", m.eu.members[0].command("xds", "bootstrap", "--agent", eu, "--client", "envoy",
		"--locality", "eu-region/a", "--outbound", outbound), outbound)

	r := &requests{outbound: outbound, service: "greeter", counts: map[string]int{}}
	eventually(t, "the first request is answered", func() error {
		_, err := r.send(t.Context())
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	var sender sync.WaitGroup
	sender.Go(func() { r.run(ctx) })
	defer sender.Wait()
	defer cancel()
	r.goTo(t, "near")
	was := r.calledBy()
	rotateRoot(t, m.eu, near, func() {
		eventually(t, "the certificate of the caller is replaced", func() error {
			if now := r.calledBy(); now == was {
				return fmt.Errorf("it is %s", now)
			}
			return nil
		})
	})
	r.goTo(t, "near")

	m.register(m.eu, "a", near, "unhealthy")
	r.goTo(t, "far")
	require.NoError(t, nearEnvoy.cmd.Process.Kill())
	rotateRoot(t, m.us, far, func() {})
	r.goTo(t, "far")

	m.eu.members[0].command("federation", "suspend", m.us.domain)
	cancel()
	sender.Wait()
	eventually(t, "no request goes to the suspended domain", func() error {
		if text, err := r.send(t.Context()); err == nil {
			return fmt.Errorf("%s answers", text)
		}
		return nil
	})
}
