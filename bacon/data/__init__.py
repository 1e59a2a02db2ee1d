"""Real images.

datasets: what each looks like. loading: where its images come from. readers: the official files.
tiny_imagenet, image_folder: those of two datasets. fetching: downloads. pt_layout: the .pt file of
a dataset. real_data: batches. pictures: class folders and how a picture is read. spaces:
normalising, ZCA, planes of luma and chroma. known_classes: names of classes.
"""
