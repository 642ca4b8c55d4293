package workload

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// KubernetesConfig configures a [Kubernetes].
type KubernetesConfig struct {
	// URL is the kubelet of this node, such as https://127.0.0.1:10250.
	URL string
	// CAFile verifies the kubelet. SkipVerification leaves that out, for a kubelet on this machine alone: its
	// certificate is self-signed by default. Then the port must be one that root, or the agent's user, listens at.
	CAFile           string
	SkipVerification bool
	// TokenFile has the token for the kubelet, read for each call; CertFile and KeyFile are a certificate instead.
	TokenFile, CertFile, KeyFile string
	Logger                       hclog.Logger
}

// Kubernetes is the attestor of pods, by what the kubelet of the node knows of them. Its selectors are ns, sa,
// node-name, pod-name, pod-uid, pod-label:NAME:VALUE, pod-owner:KIND:NAME, pod-owner-uid:KIND:UID, pod-image,
// pod-init-image, container-name and container-image. A process in no pod has none.
type Kubernetes struct {
	cfg     KubernetesConfig
	client  *http.Client
	cgroups func(pid int32) (string, error)

	mu        sync.Mutex
	pods      map[string]kubePod // by UID
	at, tried time.Time          // when they were read, and when that was tried last
}

const (
	// podsFor is how long a list of pods is used for pods that it has, and podsAgain the time between two lists while
	// one is missing. The kubelet has a container a moment after it has started.
	podsFor, podsAgain = 5 * time.Second, 500 * time.Millisecond
	// podWait is how long a workload waits for its pod to appear.
	podWait     = 10 * time.Second
	maxPods     = 64 << 20
	kubeletCall = 5 * time.Second
)

// NewKubernetes reads the authorities and the certificate.
func NewKubernetes(cfg KubernetesConfig) (*Kubernetes, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("kubelet.url %q is not an https URL, such as https://127.0.0.1:10250", cfg.URL)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	dial := (&net.Dialer{}).DialContext
	ip := net.ParseIP(u.Hostname())
	switch {
	case cfg.SkipVerification && (ip == nil || !ip.IsLoopback()):
		return nil, fmt.Errorf("kubelet.skip_verification is for a kubelet on this machine, and %s is not an address "+
			"of it: give ca_file", u.Hostname())
	case cfg.SkipVerification:
		config.InsecureSkipVerify = true //nolint:gosec // of this machine, and of root there
		dial = dialOwn
	case cfg.CAFile == "":
		return nil, errors.New("kubelet.ca_file is missing: give it, or skip_verification for a kubelet on this " +
			"machine")
	default:
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("kubelet.ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("kubelet.ca_file %s has no certificate in PEM", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			return &pair, err
		}
	}
	return &Kubernetes{
		cfg: cfg, cgroups: cgroupsOf,
		client: &http.Client{
			Timeout: kubeletCall,
			Transport: &http.Transport{
				DialContext: dial, TLSClientConfig: config, MaxConnsPerHost: 2, IdleConnTimeout: time.Minute,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // the token goes nowhere else
			},
		},
	}, nil
}

// Type implements [Attestor].
func (*Kubernetes) Type() string { return "k8s" }

// Attest implements [Attestor]. While the kubelet does not answer, a workload has none of these selectors.
func (k *Kubernetes) Attest(ctx context.Context, p Process) ([]string, error) {
	cgroups, err := k.cgroups(p.PID)
	if err != nil {
		return nil, err
	}
	uid, id, ok := containerOf(cgroups)
	if !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, podWait)
	defer cancel()
	var last error
	for {
		selectors, err := k.of(ctx, uid, id)
		if selectors != nil {
			return selectors, nil
		}
		if err != nil {
			last = err
		}
		timer := time.NewTimer(podsAgain)
		select {
		case <-ctx.Done():
			timer.Stop()
			k.cfg.Logger.Warn("the pod of a workload is not known", "pid", p.PID, "pod", uid, "container", id,
				"error", last)
			return nil, nil
		case <-timer.C:
		}
	}
}

// kubePod is the part of a pod that is used.
type kubePod struct {
	Metadata struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		UID             string            `json:"uid"`
		Labels          map[string]string `json:"labels"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		ServiceAccountName string `json:"serviceAccountName"`
		NodeName           string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Containers          []kubeContainer `json:"containerStatuses"`
		InitContainers      []kubeContainer `json:"initContainerStatuses"`
		EphemeralContainers []kubeContainer `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type kubeContainer struct {
	Name        string `json:"name"`
	Image       string `json:"image"`
	ImageID     string `json:"imageID"`
	ContainerID string `json:"containerID"`
}

// images returns the names of the image of a container.
func (c kubeContainer) images() []string {
	names := []string{c.Image}
	if _, id, ok := strings.Cut(c.ImageID, "://"); ok {
		names = append(names, id)
	} else {
		names = append(names, c.ImageID)
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

const (
	// staticPod is the annotation with the UID by which the kubelet names the groups of a pod of its own files.
	staticPod = "kubernetes.io/config.hash"
	// mirrorPod has the same value if the pod is the one that the API server has for such a pod.
	mirrorPod = "kubernetes.io/config.mirror"
)

// of returns the selectors of a container, or nil if the kubelet does not have it.
func (k *Kubernetes) of(ctx context.Context, uid, id string) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.at) < podsFor {
		if selectors := k.pods[uid].selectors(id); selectors != nil {
			return selectors, nil
		}
	}
	if time.Since(k.tried) < podsAgain {
		return nil, nil
	}
	k.tried = time.Now()
	pods, err := k.list(ctx)
	if err != nil {
		return nil, err
	}
	k.pods, k.at = pods, k.tried
	return pods[uid].selectors(id), nil
}

// selectors returns those of a container of the pod, or nil if it has none with the ID.
func (p kubePod) selectors(id string) []string {
	var s []string
	add := func(parts ...string) {
		if parts[len(parts)-1] != "" {
			s = append(s, strings.Join(parts, ":"))
		}
	}
	found := false
	for _, list := range [][]kubeContainer{p.Status.Containers, p.Status.InitContainers, p.Status.EphemeralContainers} {
		for _, c := range list {
			if _, of, _ := strings.Cut(c.ContainerID, "://"); of != id {
				continue
			}
			found = true
			add("container-name", c.Name)
			for _, image := range c.images() {
				add("container-image", image)
			}
		}
	}
	if !found {
		return nil
	}
	add("ns", p.Metadata.Namespace)
	add("sa", p.Spec.ServiceAccountName)
	add("node-name", p.Spec.NodeName)
	add("pod-name", p.Metadata.Name)
	add("pod-uid", p.Metadata.UID)
	for name, value := range p.Metadata.Labels {
		s = append(s, "pod-label:"+name+":"+value) // an empty value is one
	}
	for _, o := range p.Metadata.OwnerReferences {
		add("pod-owner", o.Kind, o.Name)
		add("pod-owner-uid", o.Kind, o.UID)
	}
	for _, c := range p.Status.Containers {
		for _, image := range c.images() {
			add("pod-image", image)
		}
	}
	for _, c := range p.Status.InitContainers {
		for _, image := range c.images() {
			add("pod-init-image", image)
		}
	}
	return s
}

// list returns the pods that the kubelet runs.
func (k *Kubernetes) list(ctx context.Context) (map[string]kubePod, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(k.cfg.URL, "/")+"/pods", nil)
	if err != nil {
		return nil, err
	}
	if k.cfg.TokenFile != "" {
		token, err := os.ReadFile(k.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token for the kubelet: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	answer, err := k.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the pods of this node: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the kubelet answered %s to /pods: the account of the agent needs the right to get "+
			"nodes/proxy", answer.Status)
	}
	var pods struct {
		Items []kubePod `json:"items"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxPods)).Decode(&pods); err != nil {
		return nil, fmt.Errorf("read the pods of this node: %w", err)
	}
	of := make(map[string]kubePod, len(pods.Items))
	for _, p := range pods.Items {
		of[p.Metadata.UID] = p
	}
	for _, p := range pods.Items {
		hash := p.Metadata.Annotations[staticPod]
		if _, taken := of[hash]; !taken && hash != "" && p.Metadata.Annotations[mirrorPod] == hash {
			of[hash] = p
		}
	}
	return of, nil
}
