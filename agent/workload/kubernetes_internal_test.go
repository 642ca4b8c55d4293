package workload

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
)

const (
	podUID = "6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11"
	other  = "00000000-0000-4000-8000-000000000000"
)

var (
	under = strings.ReplaceAll(podUID, "-", "_")
	cid   = strings.Repeat("ab", 32)
	cid2  = strings.Repeat("cd", 32)
)

func TestContainerOf(t *testing.T) {
	for name, path := range map[string]string{
		"v2, systemd": "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under +
			".slice/cri-containerd-" + cid + ".scope",
		"guaranteed":   "0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + cid + ".scope",
		"v2, cgroupfs": "0::/kubepods/besteffort/pod" + podUID + "/" + cid,
		"v1": "11:memory:/kubepods/burstable/pod" + podUID + "/" + cid + "\n1:name=systemd:/kubepods/burstable/pod" +
			podUID +
			"/" + cid + "\n0::/",
		"kind": "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/" +
			"kubelet-kubepods-besteffort-pod" +
			under + ".slice/cri-containerd-" + cid + ".scope",
		"a cgroup namespace": "0::/../../pod" + podUID + "/" + cid,
		"a namespace, systemd": "0::/../../kubepods-besteffort-pod" + under + ".slice/cri-containerd-" + cid +
			".scope",
		"a namespace, other class": "0::/../../../burstable/pod" + podUID + "/" + cid,
		"a group below the container": "0::/kubepods/pod" + podUID + "/" + cid + "/kubepods/pod" + other + "/" +
			cid2,
	} {
		uid, id, ok := containerOf(path + "\n")
		require.True(t, ok, name)
		require.Equal(t, podUID, uid, name)
		require.Equal(t, cid, id, name)
	}
	for name, path := range map[string]string{
		"nothing":            "",
		"a service":          "0::/system.slice/cron.service",
		"a pod alone":        "0::/kubepods/pod" + podUID,
		"no container":       "0::/kubepods/pod" + podUID + "/cri-containerd.service",
		"a user's group":     "0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod" + podUID + "/" + cid,
		"a user's, relative": "0::/../../../user.slice/user-1000.slice/kubepods/pod" + podUID + "/" + cid,
		"a machine's":        "0::/machine.slice/libpod-" + cid + ".scope/kubepods/pod" + podUID + "/" + cid,
		"no UID":             "0::/kubepods/podx/" + cid,
		"two that differ": "1:cpu:/kubepods/pod" + podUID + "/" + cid + "\n2:memory:/kubepods/pod" + other + "/" +
			cid,
		"an own group": "0::/kubepods/own/pod" + podUID + "/" + cid,
	} {
		_, _, ok := containerOf(path + "\n")
		require.False(t, ok, name)
	}
}

func FuzzContainerOf(f *testing.F) {
	f.Add("0::/kubepods/pod" + podUID + "/" + cid)
	f.Fuzz(func(t *testing.T, cgroups string) {
		uid, id, ok := containerOf(cgroups)
		if ok {
			require.NotEmpty(t, uid)
			require.Len(t, id, 64)
		}
	})
}

const pods = `{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"web-7d","namespace":"shop",
"uid":"` + podUID + `","labels":{"app":"web","empty":""},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",
"name":"web","uid":"r"}]},"spec":{"serviceAccountName":"web","nodeName":"node-1"},"status":{"containerStatuses":[
{"name":"main","image":"docker.io/web:1","imageID":"docker.io/web@sha256:00","containerID":"containerd://CID"},
{"name":"side","image":"side:2","imageID":"docker-pullable://side@sha256:11","containerID":"containerd://CI2"}],
"initContainerStatuses":[{"name":"init","image":"init:3","imageID":"","containerID":"containerd://0"}]}}]}`

// kubelet is an HTTPS server that answers /pods as a kubelet does.
func kubelet(t *testing.T, answer func(n int64) (int, string)) (KubernetesConfig, *atomic.Int64) {
	t.Helper()
	calls := &atomic.Int64{}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/pods" || r.Header.Get("Authorization") != "Bearer kubelet-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		code, body := answer(calls.Add(1))
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: server.Certificate().Raw,
	}), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("kubelet-token\n"), 0o600))
	return KubernetesConfig{URL: server.URL, CAFile: ca, TokenFile: token, Logger: hclog.NewNullLogger()}, calls
}

func TestKubernetesSelectors(t *testing.T) {
	list := strings.NewReplacer("CID", cid, "CI2", cid2).Replace(pods)
	cfg, calls := kubelet(t, func(n int64) (int, string) {
		if n == 1 {
			return http.StatusOK, `{"items":[]}` // the container has just started
		}
		return http.StatusOK, list
	})
	k, err := NewKubernetes(cfg)
	require.NoError(t, err)
	k.cgroups = func(int32) (string, error) { return "0::/kubepods/pod" + podUID + "/" + cid + "\n", nil }
	selectors, err := k.Attest(t.Context(), Process{PID: 1})
	require.NoError(t, err)
	slices.Sort(selectors)
	require.Equal(t, []string{
		"container-image:docker.io/web:1", "container-image:docker.io/web@sha256:00", "container-name:main",
		"node-name:node-1",
		"ns:shop", "pod-image:docker.io/web:1", "pod-image:docker.io/web@sha256:00", "pod-image:side:2",
		"pod-image:side@sha256:11", "pod-init-image:init:3", "pod-label:app:web", "pod-label:empty:", "pod-name:web-7d",
		"pod-owner-uid:ReplicaSet:r", "pod-owner:ReplicaSet:web", "pod-uid:" + podUID, "sa:web",
	}, selectors)
	require.EqualValues(t, 2, calls.Load())
	_, err = k.Attest(t.Context(), Process{PID: 1})
	require.NoError(t, err)
	require.EqualValues(t, 2, calls.Load(), "the list is used again")

	// The ID of the container must be one of the pod's.
	k.cgroups = func(int32) (string, error) { return "0::/kubepods/pod" + other + "/" + cid + "\n", nil }
	ctx, cancel := cancelled(t)
	defer cancel()
	selectors, err = k.Attest(ctx, Process{PID: 1})
	require.NoError(t, err)
	require.Empty(t, selectors)
	k.cgroups = func(int32) (string, error) { return "0::/system.slice/cron.service\n", nil }
	selectors, err = k.Attest(t.Context(), Process{PID: 1})
	require.NoError(t, err)
	require.Empty(t, selectors)
}

func TestKubeletThatFails(t *testing.T) {
	cfg, _ := kubelet(t, func(int64) (int, string) { return http.StatusOK, "{" })
	k, err := NewKubernetes(cfg)
	require.NoError(t, err)
	_, err = k.list(t.Context())
	require.ErrorContains(t, err, "read the pods of this node")
	require.NoError(t, os.WriteFile(cfg.TokenFile, []byte("another"), 0o600))
	_, err = k.list(t.Context())
	require.ErrorContains(t, err, "the kubelet answered 401 Unauthorized to /pods: the account of the agent needs")
	skip := cfg
	skip.CAFile, skip.SkipVerification, skip.URL = "", true, "https://10.0.0.1:10250"
	_, err = NewKubernetes(skip)
	require.ErrorContains(t, err, "10.0.0.1 is not an address of it: give ca_file")
	skip.URL = cfg.URL
	k, err = NewKubernetes(skip)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cfg.TokenFile, []byte("kubelet-token"), 0o600))
	_, err = k.list(t.Context())
	require.ErrorContains(t, err, "unexpected EOF", "it has answered")
	_, err = NewKubernetes(KubernetesConfig{URL: "http://127.0.0.1:10255"})
	require.ErrorContains(t, err, "is not an https URL")
	_, err = NewKubernetes(KubernetesConfig{URL: cfg.URL})
	require.ErrorContains(t, err, "kubelet.ca_file is missing")
}

// TestPodsOfOthers: no annotation that a pod carries makes it the pod of another UID that the kubelet runs, and that of
// a pod of the kubelet's own files counts for its mirror alone.
func TestPodsOfOthers(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef"
	of := func(name, uid, annotations string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"uid":%q,"annotations":{%s}}}`, name, uid, annotations)
	}
	both := func(hash string) string {
		return fmt.Sprintf(`"kubernetes.io/config.hash":%[1]q,"kubernetes.io/config.mirror":%[1]q`, hash)
	}
	for name, c := range map[string]struct {
		items []string
		uid   string
		want  string
	}{
		"of another, after it":  {[]string{of("web", podUID, ""), of("thief", other, both(podUID))}, podUID, "web"},
		"of another, before it": {[]string{of("thief", other, both(podUID)), of("web", podUID, "")}, podUID, "web"},
		"no mirror":             {[]string{of("thief", other, `"kubernetes.io/config.hash":"`+hash+`"`)}, hash, ""},
		"a mirror of another": {[]string{of("thief", other, `"kubernetes.io/config.hash":"`+hash+
			`","kubernetes.io/config.mirror":"x"`)}, hash, ""},
		"a mirror":     {[]string{of("etcd", other, both(hash))}, hash, "etcd"},
		"a static pod": {[]string{of("etcd", hash, `"kubernetes.io/config.hash":"`+hash+`"`)}, hash, "etcd"},
	} {
		cfg, _ := kubelet(t, func(int64) (int, string) {
			return http.StatusOK, `{"items":[` + strings.Join(c.items, ",") + `]}`
		})
		k, err := NewKubernetes(cfg)
		require.NoError(t, err)
		pods, err := k.list(t.Context())
		require.NoError(t, err)
		require.Equal(t, c.want, pods[c.uid].Metadata.Name, name)
	}
}
