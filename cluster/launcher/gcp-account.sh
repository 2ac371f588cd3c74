#!/usr/bin/env bash
# PROJECT [REGION]: create once what gcp.yaml needs in a project: network, bucket, image registry, service accounts.
set -euo pipefail
project="${1:?usage: gcp-account.sh PROJECT [REGION]}" region="${2:-us-central1}"
gcloud() { command gcloud --project="$project" --quiet "$@"; }

gcloud services enable compute.googleapis.com iam.googleapis.com iap.googleapis.com artifactregistry.googleapis.com \
    cloudresourcemanager.googleapis.com

# No node has an external address. Nodes reach Google's services internally, and other hosts through NAT. ssh comes only
# through Identity-Aware Proxy, which authenticates the user.
gcloud compute networks create sclip --subnet-mode=custom
gcloud compute networks subnets create sclip --network=sclip --region="$region" --range=10.10.0.0/20 \
    --enable-private-ip-google-access
gcloud compute firewall-rules create sclip-nodes --network=sclip --source-ranges=10.10.0.0/20 --allow=all
gcloud compute firewall-rules create sclip-iap --network=sclip --source-ranges=35.235.240.0/20 --allow=tcp:22
gcloud compute routers create sclip --network=sclip --region="$region"
gcloud compute routers nats create sclip --router=sclip --region="$region" --auto-allocate-nat-external-ips \
    --nat-all-subnet-ip-ranges

gcloud storage buckets create "gs://sclip-$project" --location="$region" --uniform-bucket-level-access \
    --public-access-prevention
gcloud artifacts repositories create sclip --repository-format=docker --location="$region"

# Ray looks for the head's account by this name, and grants it the rights to start nodes.
for account in sclip-node ray-autoscaler-sa-v1; do
    gcloud iam service-accounts create "$account"
    member="serviceAccount:$account@$project.iam.gserviceaccount.com"
    gcloud artifacts repositories add-iam-policy-binding sclip --location="$region" --member="$member" \
        --role=roles/artifactregistry.reader
    gcloud storage buckets add-iam-policy-binding "gs://sclip-$project" --member="$member" \
        --role=roles/storage.objectUser
done
