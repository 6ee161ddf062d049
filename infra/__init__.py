"""What runs this project on a cluster: container, Kubernetes, tracking, monitoring, and a cluster to try it on."""
