package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"time"

	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/debug"
)

// registerDebug serves what describes the process.
func registerDebug(m *member, r grpc.ServiceRegistrar) {
	ententev1.RegisterDebugServiceServer(r, debug.New(map[string]debug.Source{
		"entente.hcl":      func() ([]byte, error) { return m.cfg.Effective(), nil },
		"log.txt":          m.tail.Lines,
		"metrics.txt":      debug.Metrics(m.registry),
		"raft.json":        func() ([]byte, error) { return raftSummary(m) },
		"certificates.pem": func() ([]byte, error) { return certificates(m) },
		"ready.txt":        func() ([]byte, error) { return m.operations.Report(), nil },
	}))
}

// raftSummary describes Raft as a member sees it.
func raftSummary(m *member) ([]byte, error) {
	leader, _ := m.store.Leader()
	return json.MarshalIndent(struct {
		Time            time.Time         `json:"time"`
		Version         string            `json:"version"`
		ClusterID       string            `json:"cluster_id"`
		Member          string            `json:"member"`
		Leader          string            `json:"leader"`
		Revision        uint64            `json:"revision"`
		ElectionTimeout string            `json:"election_timeout"`
		DiskMedian      string            `json:"disk_median"`
		Raft            map[string]string `json:"raft"`
	}{
		time.Now().UTC(), Version, m.store.ClusterID(), m.cfg.Member.ID, leader.MemberID,
		uint64(m.store.View().Revision()), m.store.ElectionTimeout().String(), m.store.Disk().Median().String(),
		m.store.Stats(),
	}, "", "  ")
}

// certificates returns the certificates that a member presents, without their keys.
func certificates(m *member) ([]byte, error) {
	var out bytes.Buffer
	add := func(c *tls.Certificate, err error) error {
		if err != nil {
			return err
		}
		for _, der := range c.Certificate {
			if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
				return err
			}
		}
		return nil
	}
	identity := m.identity.Certificate
	err := errors.Join(add(&identity, nil), add(m.authority.MemberSVID()))
	if m.web != nil {
		err = errors.Join(err, add(m.web.Certificate(context.Background(), "")))
	}
	if out.Len() > 0 {
		err = nil
	}
	return out.Bytes(), err
}
