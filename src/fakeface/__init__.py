"""Train, track and prove a detector of computer-made faces.

Data flows one way: address → bytes → checked image → manifest row → array → batch → score → metric → figure → MLflow.

    system, visualization   files, locks, checksums, archives, processes, signals; style, SVG and HTML pages
    images                  bytes of image files to checked pixels
    metrics                 scores and labels to numbers, calibration and the comparison of two models
    config                  params.yaml as typed objects, and the catalogue of collections
    models                  networks, their checkpoints, and the device that they run on
    data                    formats that stages share; download, split and audit are the stages before training
    inference               scores of a network, and `fakeface predict`
    training                the three training stages, augmentation, several GPUs and machines
    evaluation              every checkpoint on the held-out sources
    reporting               the result as figures, page and table
    tracking                MLflow's runs and model registry; nothing else imports MLflow
    cli                     the `fakeface` command; pipeline/ has a script for each stage of dvc.yaml
"""
